"""A system's wav as scorers hear it: mono, 16 kHz, or the reason why it cannot be scored.

Another sample rate is no fault (it is resampled and counted); nothing is trimmed or made louder, since that is the
system's work.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16000
SILENCE = 1e-4
"""Below this peak (-80 dBFS) there is dither and nothing else."""
SHORTEST = 0.05
LONGEST = 600.0
"""Seconds; a system that does not stop fills disks, and a recogniser's day."""


@dataclass(frozen=True)
class Audio:
    """`samples`: float32 [T] at 16 kHz. `rate` and `seconds` are the file's own."""

    samples: np.ndarray
    rate: int
    seconds: float


@dataclass(frozen=True)
class Unusable:
    """`reason`: missing, unreadable, empty, silent, not_numbers or too_long."""

    reason: str
    detail: str


def content_hash(path: Path) -> str | None:
    """sha256 (hex) of a file; None where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def load(path: Path) -> Audio | Unusable:
    """Decodes a file that libsndfile reads (wav, flac, ogg, mp3)."""
    import soundfile

    if not path.is_file():
        return Unusable("missing", f"{path.name} is not there")
    try:
        with soundfile.SoundFile(str(path)) as file:
            seconds, rate = file.frames / file.samplerate, file.samplerate
            if seconds > LONGEST:
                return Unusable("too_long", f"{seconds:.0f} s, {LONGEST:.0f} s are heard at most")
            samples_TC: Any = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        return Unusable("unreadable", str(error).splitlines()[0][:120] if str(error) else type(error).__name__)
    if seconds < SHORTEST:
        return Unusable("empty", f"{seconds:.3f} s of audio")
    mono_T = samples_TC.mean(axis=1)
    if not np.isfinite(mono_T).all():
        return Unusable("not_numbers", "holds samples that are not numbers")
    peak = float(np.abs(mono_T).max(initial=0.0))
    if peak < SILENCE:
        return Unusable("silent", f"peaks at {peak:.1e}")
    return Audio(resampled(mono_T, rate), rate, seconds)


def resampled(mono_T: np.ndarray, rate: int) -> np.ndarray:
    """Samples at 16 kHz."""
    if rate == RATE:
        return np.ascontiguousarray(mono_T, dtype=np.float32)
    import soxr

    return np.ascontiguousarray(soxr.resample(mono_T, rate, RATE), dtype=np.float32)
