"""Quality of every candidate clip."""

import dataclasses

from annotation.audio.quality import QualityMeter
from pipelines.stages.base import Stage, StageContext, WindowAudio, WindowOutput
from voxmill.data.records import StageName, WindowResult


class Measure(Stage):
    """Measures of a window's clips and the gain that brings each to its loudness."""

    name = StageName.QUALITY

    def __init__(self, context: StageContext) -> None:
        self.meter = QualityMeter(context.label.quality, context.threads)

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        rate = result.window.sample_rate
        candidates = tuple(
            dataclasses.replace(candidate, quality=self.meter(clip, rate, result.dc_offset))
            for candidate, clip in zip(result.candidates, audio.clips, strict=True)
        )
        return WindowOutput(dataclasses.replace(result, candidates=candidates), audio, len(candidates))
