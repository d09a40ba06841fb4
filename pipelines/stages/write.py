"""The unit's file: labels first, then every candidate clip as FLAC at its stated loudness. Renamed into place."""

from collections.abc import Sequence

from annotation.audio.quality import at_loudness
from pipelines.stages.base import Stage, StageContext, UnitOutput, WindowAudio
from pipelines.units.store import unit_path, write_unit
from voxmill.core.audio import encode_flac
from voxmill.data.records import ClipId, StageName, WorkUnit


class Write(Stage):
    """Writes a unit, which is done with that; the audio ends here."""

    name = StageName.WRITE
    is_final = True

    def __init__(self, context: StageContext) -> None:
        self.out, self.config = context.out, context.label.quality

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        flacs: list[tuple[ClipId, bytes]] = []
        for result, sound in zip(unit.results, audio, strict=True):
            for candidate, clip in zip(result.clips, sound.clips, strict=True):
                assert candidate.quality is not None
                rate = result.window.sample_rate
                samples = at_loudness(clip, rate, candidate.quality.gain_db, self.config)
                flacs.append((candidate.clip_id, encode_flac(samples, rate)))
        write_unit(unit_path(self.out, unit.bucket, unit.unit_id), unit, flacs)
        return UnitOutput(unit, tuple(WindowAudio() for _ in audio))
