"""Clips small enough to lie inside a page: short Opus previews as data URIs, and rows spread over an ordering."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

EXAMPLE_RATE = 16_000
EXAMPLE_SECONDS = 15.0


def listenable(out: Path, row: Mapping[str, Any]) -> str | None:
    """A clip as a small data URI, or None where its bytes are gone (work folder swept) or do not decode."""
    if not row.get("shard") or row.get("offset") is None or not row.get("size"):
        return None
    try:
        with open(out / str(row["shard"]), "rb") as shard:
            shard.seek(int(row["offset"]))
            packed = io.BytesIO(shard.read(int(row["size"])))
        with soundfile.SoundFile(packed) as source:
            rate = source.samplerate
            audio = source.read(int(EXAMPLE_SECONDS * rate), dtype="float32", always_2d=True).mean(axis=1)
    except (OSError, ValueError, soundfile.LibsndfileError):
        return None
    if not audio.size:
        return None
    heard = np.clip(soxr.resample(audio, rate, EXAMPLE_RATE), -1.0, 1.0)
    small = io.BytesIO()
    # Level 0.9 is near 32 kbit/s in libsndfile's scale: speech stays clean enough to judge why it was dropped.
    with soundfile.SoundFile(small, "w", EXAMPLE_RATE, 1, format="OGG", subtype="OPUS", compression_level=0.9) as sink:
        # libsndfile's Ogg encoders put a whole call's samples on the stack, so a second is written at a time.
        for start in range(0, len(heard), EXAMPLE_RATE):
            sink.write(heard[start : start + EXAMPLE_RATE])
    return "data:audio/ogg;base64," + base64.b64encode(small.getvalue()).decode("ascii")


def spread(order: np.ndarray, count: int) -> list[int]:
    """Up to count rows evenly spread over an ordering, both ends included."""
    if len(order) <= count:
        return [int(row) for row in order]
    return [int(order[round(i * (len(order) - 1) / (count - 1))]) for i in range(count)]
