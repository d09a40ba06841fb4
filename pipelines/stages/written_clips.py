"""A unit's clips as their FLACs hold them, at 16 kHz: what every labeller of voices gets, now or later.

Labellers run before the file is written where they need a GPU, after it where they are added to a finished dataset, and
answer alike: the loudness of a clip and the rounding to 16 bits are the same sums at both times.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from annotation.audio.quality import QualityConfig, at_loudness, limited_gain
from pipelines.stages.base import WindowAudio
from pipelines.units.store import read_unit, unit_path
from voxmill.core.audio import RATE_16K, decode_flac, resample
from voxmill.core.storage import read_ranges
from voxmill.data.records import Candidate, WorkUnit

# float32 [T] at 16 kHz
Clips = Sequence[tuple[Candidate, np.ndarray]]


def as_written(clip: np.ndarray, rate: int, gain_db: float, config: QualityConfig) -> np.ndarray:
    """Float32 [T] at 16 kHz: what decoding the clip's FLAC gives."""
    counts = np.rint(np.clip(at_loudness(clip, rate, gain_db, config), -1, 1) * np.float32(32768))
    return resample(np.minimum(counts, 32767) / np.float32(32768), rate, RATE_16K)


def written_clips(
    unit: WorkUnit, audio: Sequence[WindowAudio], config: QualityConfig
) -> tuple[Clips, tuple[WindowAudio, ...]]:
    """The clips of a unit on its way, and its audio with them, so that they are made once a process."""
    clips: list[tuple[Candidate, np.ndarray]] = []
    kept: list[WindowAudio] = []
    for result, sound in zip(unit.results, audio, strict=True):
        written = sound.written
        if len(written) != len(result.clips):
            rate = result.window.sample_rate
            written = tuple(
                as_written(clip, rate, _gain_db(candidate, clip, rate, config), config)
                for candidate, clip in zip(result.clips, sound.clips, strict=True)
            )
        clips += zip(result.clips, written, strict=True)
        kept.append(WindowAudio(clips=sound.clips, step=sound.step, written=written))
    return clips, tuple(kept)


def _gain_db(candidate: Candidate, clip: np.ndarray, rate: int, config: QualityConfig) -> float:
    return limited_gain(clip, rate, config)[1] if candidate.quality is None else candidate.quality.gain_db


def stored_clips(out: Path, unit: WorkUnit) -> Clips:
    """The clips of a finished unit, from its file."""
    path = unit_path(out, unit.bucket, unit.unit_id)
    stored = read_unit(path)
    candidates = [candidate for result in stored.unit.results for candidate in result.clips]
    contents = read_ranges(path, [stored.places[candidate.clip_id] for candidate in candidates])
    return [
        (candidate, resample(*decode_flac(content), RATE_16K))
        for candidate, content in zip(candidates, contents, strict=True)
    ]
