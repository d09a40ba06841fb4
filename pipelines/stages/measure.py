"""Quality of every candidate clip."""

import dataclasses

from annotation.audio.quality import QualityMeter
from pipelines.stages.base import Stage, StageContext, WindowAudio, WindowOutput
from voxmill.data.records import Candidate, Quality, StageName, WindowResult


class Measure(Stage):
    """Measures of a window's clips and the gain that brings each to its loudness."""

    name = StageName.QUALITY

    def __init__(self, context: StageContext) -> None:
        self.meter = QualityMeter(context.label.quality, context.threads)

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        rate = result.window.sample_rate
        parts: dict[str, list[tuple[Quality, int]]] = {}
        measured: list[Candidate] = []
        # A long clip stands before its parts, and is measured after them.
        for candidate, clip in reversed(list(zip(result.candidates, audio.clips, strict=True))):
            quality = self.meter(clip, rate, result.dc_offset, parts.get(candidate.clip_id, ()))
            if candidate.part_of:
                parts.setdefault(candidate.part_of, []).append((quality, len(clip)))
            measured.append(dataclasses.replace(candidate, quality=quality))
        candidates = tuple(reversed(measured))
        return WindowOutput(dataclasses.replace(result, candidates=candidates), audio, len(candidates))
