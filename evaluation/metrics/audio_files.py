"""A system's wav as metrics take it: mono, 16 kHz. Nothing is trimmed or made louder, since that is the system's work.

Another sample rate is no fault: it is resampled, and the report counts it.
"""

from __future__ import annotations

from pathlib import Path

from evaluation.metrics.utterance_score import Status
from voxmill.core.audio import RATE_16K, AudioProblem, MonoAudio, Reason, read_mono
from voxmill.core.hashing import sha256_file

SHORTEST = 0.05
LONGEST = 600.0
"""Seconds; a system that does not stop fills disks, and a recogniser's day."""

_STATUSES: dict[Reason, Status] = {
    "missing": "missing",
    "too_short": "empty",
    "too_long": "too_long",
    "silent": "silent",
    "non_finite": "not_numbers",
}


def content_hash(path: Path) -> str | None:
    """sha256 (hex) of a file; None where there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return sha256_file(path)
    except FileNotFoundError:
        return None


def load(path: Path) -> MonoAudio:
    """Mono float32 samples at 16 kHz.

    Raises:
        AudioProblem: it cannot be scored; `status_of` is its status.
    """
    return read_mono(path, rate=RATE_16K, min_seconds=SHORTEST, max_seconds=LONGEST)


def status_of(problem: AudioProblem) -> Status:
    """The status of an utterance whose wav has this problem."""
    return _STATUSES.get(problem.reason, "unreadable")
