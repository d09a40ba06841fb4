"""Clips small enough to lie inside a page: short Opus previews as data URIs, and clips spread over their values."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from voxmill.core.audio import RATE_16K, AudioProblem, Samples, decode_flac, resample
from voxmill.data.shards import read_member

EXAMPLE_RATE = RATE_16K
EXAMPLE_SECONDS = 15.0


def listenable(out: Path, shard: str, offset: int, size: int) -> str | None:
    """A clip as a small data URI, or None where its bytes are gone (work folder swept) or do not decode."""
    if not shard or not size:
        return None
    try:
        samples_T, rate = decode_flac(read_member(out, shard, offset, size))
    except (FileNotFoundError, ValueError, AudioProblem):
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


def nearest_values(values: Sequence[float | None], targets: Sequence[float | None]) -> list[int]:
    """For each target another one of the values, the nearest left; places in ascending order.

    All places where there are no more values than targets. A value that was not measured is the least.
    """
    if len(values) <= len(targets):
        return list(range(len(values)))
    left = {place: -math.inf if value is None else value for place, value in enumerate(values)}
    chosen = []
    for target in targets:
        aim = -math.inf if target is None else target
        place = min(left, key=lambda place: (_gap(left[place], aim), place))
        del left[place]
        chosen.append(place)
    return sorted(chosen)


def _gap(a: float, b: float) -> float:
    return 0.0 if a == b else abs(a - b)
