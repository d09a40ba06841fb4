"""Clips that several buckets have: the one whose recording's name comes first stays, exactly.

Every bucket has written 64-bit hashes of its kept clips; hashes that two buckets share are rare, and only of those are
the clips' own names compared. One task holds the hashes of `HASHES_A_TASK` clips: 8 bytes each.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.corpus.measures import corpus_path
from voxmill.data.records import ClipId
from voxmill.data.schemas import read_parquet

HASHES_A_TASK = 16_000_000


def repeated_clips(out: Path, buckets: Sequence[int], part: int, parts: int) -> dict[int, list[ClipId]]:
    """By bucket, kept clips that another bucket has under an earlier name; of the hashes of one part of `parts`."""
    hashes = {bucket: _hashes(_kept(out, bucket)["clip_id"].to_pylist()) for bucket in buckets}
    mine = {bucket: values[values % np.uint64(parts) == part] for bucket, values in hashes.items()}
    everything = np.concatenate([np.zeros(0, np.uint64), *map(np.unique, mine.values())])
    values, counts = np.unique(everything, return_counts=True)
    shared = values[counts > 1]
    if not len(shared):
        return {}
    first: dict[ClipId, tuple[str, int, int]] = {}
    places: list[tuple[ClipId, tuple[str, int, int]]] = []
    for bucket in buckets:
        if not np.isin(mine[bucket], shared).any():
            continue
        rows = _kept(out, bucket)
        for row in rows.take(np.flatnonzero(np.isin(hashes[bucket], shared))).to_pylist():
            place = row["name"], row["start_sample"], bucket
            places.append((row["clip_id"], place))
            first[row["clip_id"]] = min(first.get(row["clip_id"], place), place)
    repeated: dict[int, list[ClipId]] = {}
    for clip_id, place in places:
        if place != first[clip_id]:
            repeated.setdefault(place[2], []).append(clip_id)
    return {bucket: sorted(clips) for bucket, clips in repeated.items()}


def _kept(out: Path, bucket: int) -> pa.Table:
    columns = ("clip_id", "name", "start_sample", "kept")
    table = read_parquet(corpus_path(out, bucket, "parquet"), columns)
    return table.filter(pc.field("kept"))


def _hashes(clips: Sequence[ClipId]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(clip.encode(), digest_size=8).digest() for clip in clips)
    return np.frombuffer(digests, dtype=np.uint64)
