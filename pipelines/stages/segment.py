"""Candidate clips of one speaker each, and their names."""

import dataclasses
from collections.abc import Sequence

from annotation.audio.diarization import DiarizationSegmenter
from annotation.audio.segmentation import Segmentation, SpeechSegmenter
from pipelines.stages.base import BatchStage, StageContext, WindowAudio, WindowInput, WindowOutput, model_source
from voxmill.core.audio import RATE_16K, resample
from voxmill.core.hashing import sha256_text
from voxmill.core.local_copies import local_model
from voxmill.core.machine.devices import limit_threads
from voxmill.data.records import Candidate, ClipId, StageName, Window, WindowResult


class Segment(BatchStage):
    """The bounds of a window's clips, in samples of the recording: cut, or those that the corpus has."""

    name = StageName.SEGMENTATION

    def __init__(self, context: StageContext) -> None:
        limit_threads(context.threads)
        self.segmenter: SpeechSegmenter | DiarizationSegmenter | None = None
        if context.label.segmented:
            return
        config = context.label.segmentation
        if config.pipeline is not None:
            self.segmenter = DiarizationSegmenter(config, local_model(config.pipeline), context.device)
            return
        model = model_source(config.model, "pyannote-segmentation", "pytorch_model.bin")
        self.segmenter = SpeechSegmenter(config, model, context.device)

    def windows(self, given: Sequence[WindowInput]) -> list[WindowOutput]:
        if self.segmenter is None:
            return [WindowOutput(_with_given(result), audio) for result, audio in given]
        found = self.segmenter([resample(audio.samples, one.window.sample_rate, RATE_16K) for one, audio in given])
        return [self._candidates(*one, segmentation) for one, segmentation in zip(given, found, strict=True)]

    def _candidates(self, result: WindowResult, audio: WindowAudio, segmentation: Segmentation) -> WindowOutput:
        window, rate, length = result.window, result.window.sample_rate, len(audio.samples)
        candidates = []
        for segment in segmentation.segments:
            start = window.start_sample + min(round(segment.start * rate), length)
            end = window.start_sample + min(round(segment.end * rate), length)
            candidates.append(
                Candidate(
                    clip_id=clip_id(window, start, end),
                    start_sample=start,
                    end_sample=end,
                    turn=segment.speaker,
                    cut=segment.cut,
                )
            )
        if not candidates:
            share = segmentation.overlap_seconds / max(segmentation.speech_seconds, 1e-9)
            reason = "overlapped_speech" if share > 0.5 else "no_segment"
            return self.end(result, reason, value=share, threshold=0.5, calls=1)
        return WindowOutput(dataclasses.replace(result, candidates=tuple(candidates)), audio, 1)


def _with_given(result: WindowResult) -> WindowResult:
    """A window with the corpus's own clips as its candidates."""
    window = result.window
    candidates = [
        Candidate(
            clip_id=clip_id(window, clip.start, clip.end),
            start_sample=clip.start,
            end_sample=clip.end,
            turn=0,
            cut="given",
        )
        for clip in window.clips
    ]
    return dataclasses.replace(result, candidates=tuple(candidates))


def clip_id(window: Window, start_sample: int, end_sample: int) -> ClipId:
    """The name of a clip: a hash of its recording and its bounds there, and of its channel where others have clips."""
    channel = f":{window.channel}" if window.levels else ""
    return sha256_text(f"{window.recording_id}:{start_sample}:{end_sample}{channel}")[:32]
