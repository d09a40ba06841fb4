"""Clips that several buckets have: the one whose recording's name comes first stays, exactly.

Every bucket has written 64-bit hashes of its clips; hashes that two buckets share are rare, and only of those are the
clips' own names compared. One task holds the hashes of some `HASHES_A_TASK` clips, 8 bytes each, and writes what it has
found to a file, of which each bucket reads its own rows.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.corpus.measures import corpus_path
from voxmill.core.files import write_atomically
from voxmill.data.records import ClipId
from voxmill.data.schemas import read_parquet

HASHES_A_TASK = 16_000_000
_ROWS_A_GROUP = 4096


def num_parts(clips: int, buckets: int) -> int:
    """Tasks in which the clips of all buckets are compared; none where there is one bucket."""
    return clips // HASHES_A_TASK + 1 if buckets > 1 else 0


def write_repeated(out: Path, buckets: Sequence[int], part: int, parts: int) -> None:
    """Writes which kept clips another bucket has under an earlier name; of the hashes of one part of `parts`."""
    mine = {bucket: hashes[hashes % parts == part] for bucket in buckets for hashes in [_kept_hashes(out, bucket)]}
    everything = np.concatenate([np.zeros(0, np.int64), *map(np.unique, mine.values())])
    values, counts = np.unique(everything, return_counts=True)
    shared = values[counts > 1]
    first: dict[ClipId, tuple[str, int, int]] = {}
    places: list[tuple[ClipId, tuple[str, int, int]]] = []
    for bucket in buckets if len(shared) else ():
        if np.isin(mine[bucket], shared).any():
            for row in _rows(out, bucket, shared):
                place = str(row["name"]), int(str(row["start_sample"])), bucket
                clip_id = str(row["clip_id"])
                places.append((clip_id, place))
                first[clip_id] = min(first.get(clip_id, place), place)
    rows = sorted((place[2], clip_id) for clip_id, place in places if place != first[clip_id])
    columns = {
        "bucket": pa.array([bucket for bucket, _ in rows], pa.int64()),
        "clip_id": pa.array([clip_id for _, clip_id in rows], pa.string()),
    }
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, row_group_size=_ROWS_A_GROUP, compression="zstd")
    write_atomically(_path(out, part), content.getvalue())


def read_repeated(out: Path, bucket: int, parts: int) -> list[ClipId]:
    """Clips of a bucket that another one has under an earlier name, in order."""
    clips: list[ClipId] = []
    for part in range(parts):
        with _path(out, part).open("rb") as file:
            parquet = pq.ParquetFile(file)
            for group in range(parquet.num_row_groups):
                buckets = parquet.metadata.row_group(group).column(0).statistics
                # A group without rows has no statistics.
                if buckets is not None and buckets.min <= bucket <= buckets.max:
                    rows = parquet.read_row_group(group).filter(pc.field("bucket") == bucket)
                    clips += rows["clip_id"].to_pylist()
    return sorted(clips)


def _path(out: Path, part: int) -> Path:
    return out / "work" / "corpus" / f"repeated-{part:04d}.parquet"


def _kept_hashes(out: Path, bucket: int) -> np.ndarray:
    table = read_parquet(corpus_path(out, bucket, "parquet"), ("hash", "kept"))
    kept: np.ndarray = table["hash"].to_numpy()[table["kept"].to_numpy()]
    return kept


def _rows(out: Path, bucket: int, hashes: np.ndarray) -> list[dict[str, object]]:
    """Kept clips whose hash is one of these: names and places."""
    table = read_parquet(corpus_path(out, bucket, "parquet"), ("clip_id", "hash", "name", "start_sample", "kept"))
    chosen = table["kept"].to_numpy() & np.isin(table["hash"].to_numpy(), hashes)
    rows: list[dict[str, object]] = table.take(np.flatnonzero(chosen)).to_pylist()
    return rows
