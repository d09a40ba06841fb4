"""Clips small enough to lie inside a page: short Opus previews as data URIs, and rows spread over an ordering."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np

from voxmill.core.audio import RATE_16K, AudioProblem, Samples, decode_flac, resample

EXAMPLE_RATE = RATE_16K
EXAMPLE_SECONDS = 15.0


def listenable(out: Path, row: Mapping[str, Any]) -> str | None:
    """A clip as a small data URI, or None where its bytes are gone (work folder swept) or do not decode."""
    if not row.get("shard") or row.get("offset") is None or not row.get("size"):
        return None
    try:
        with open(out / str(row["shard"]), "rb") as shard:
            shard.seek(int(row["offset"]))
            samples_T, rate = decode_flac(shard.read(int(row["size"])))
    except (OSError, AudioProblem):
        return None
    preview_T = samples_T[: int(EXAMPLE_SECONDS * rate)]
    if not preview_T.size:
        return None
    return "data:audio/ogg;base64," + base64.b64encode(_opus(resample(preview_T, rate, EXAMPLE_RATE))).decode("ascii")


def _opus(audio: Samples) -> bytes:
    """Mono float32 [T] in [-1, 1] at `EXAMPLE_RATE` as Opus in Ogg, 24 kbit/s: speech stays clean enough to judge.

    libsndfile would do, and takes 13 times as long: it asks Opus for its slowest search.
    """
    packed = io.BytesIO()
    # Without bitexact, the stream's number is drawn and two reports of the same run differ.
    with av.open(packed, "w", format="ogg", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("libopus", rate=EXAMPLE_RATE, options={"compression_level": "5"})
        stream.bit_rate, stream.layout = 24_000, "mono"
        samples = (np.clip(audio, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = EXAMPLE_RATE
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return packed.getvalue()


def spread(order: np.ndarray, count: int) -> list[int]:
    """Up to count rows evenly spread over an ordering, both ends included."""
    if len(order) <= count:
        return [int(row) for row in order]
    return [int(order[round(i * (len(order) - 1) / (count - 1))]) for i in range(count)]
