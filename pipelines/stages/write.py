"""The unit's file: labels first, then every candidate clip as FLAC at its stated loudness. Renamed into place."""

from collections.abc import Sequence

import numpy as np

from pipelines.stages.base import Stage, StageContext, UnitOutput, WindowAudio, clip_slice
from pipelines.units.store import unit_path, write_unit
from voxmill.core.audio import RATE_16K, decode_flac, encode_flac, resample
from voxmill.data.records import ClipId, StageName, WorkUnit


class Write(Stage):
    """Writes a unit and hands on its clips as they were written, for the labellers of voices."""

    name = StageName.WRITE
    cpu_share = 0.05

    def __init__(self, context: StageContext) -> None:
        self.out = context.out
        self.hands_on = bool(context.voice_attributes.labellers)

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        flacs: list[tuple[ClipId, bytes]] = []
        written: list[WindowAudio] = []
        for result, sound in zip(unit.results, audio, strict=True):
            first = len(flacs)
            for candidate in result.clips:
                assert candidate.quality is not None
                gain = 10 ** (candidate.quality.gain_db / 20)
                samples = sound.samples[clip_slice(result, candidate.start_sample, candidate.end_sample)]
                content = encode_flac(samples * np.float32(gain), result.window.sample_rate)
                flacs.append((candidate.clip_id, content))
            own = flacs[first:] if self.hands_on else []
            written.append(WindowAudio(clips=tuple(clip_at_16k(content) for _, content in own)))
        write_unit(unit_path(self.out, unit.bucket, unit.unit_id), unit, flacs)
        return UnitOutput(unit, tuple(written))


def clip_at_16k(content: bytes) -> np.ndarray:
    """A clip's FLAC as float32 [T] at 16 kHz, as every labeller of voices gets it, now or later."""
    return resample(*decode_flac(content), RATE_16K)
