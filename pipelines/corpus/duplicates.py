"""Clips that several buckets have: the one whose recording's name comes first stays, exactly.

Every bucket has written 64-bit hashes of its clips; hashes that two buckets share are rare, and only of those are the
clips' own names compared. One task holds the hashes of some `HASHES_A_TASK` clips, 12 bytes each, and writes what it
has found to a file, of which each bucket reads its own rows. Where there are several such tasks, others divide the
hashes among them first, so that none is read twice.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.corpus.measures import corpus_path
from voxmill.core.files import remove_files, write_atomically
from voxmill.core.local_ray.tasks import map_tasks
from voxmill.data.records import ClipId
from voxmill.data.schemas import read_parquet

HASHES_A_TASK = 16_000_000
BUCKETS_A_FILE = 64
"""Whose hashes are divided by one task: some 3 million clips."""
MEMORY = 1 << 30
"""Bytes that a task may take."""
_ROWS_A_GROUP = 4096


def num_parts(clips: int, buckets: int) -> int:
    """Tasks in which the clips of all buckets are compared; none where there is one bucket."""
    return clips // HASHES_A_TASK + 1 if buckets > 1 else 0


def find_repeated(out: Path, buckets: Sequence[int], clips: int) -> int:
    """Finds, of so many, the clips that another bucket has too; returns the number of files that name them."""
    parts = num_parts(clips, len(buckets))
    if not parts:
        return 0
    groups = [buckets[i : i + BUCKETS_A_FILE] for i in range(0, len(buckets), BUCKETS_A_FILE)] if parts > 1 else []
    for _ in map_tasks(lambda i: write_hashes(out, groups[i], i, parts), range(len(groups)), memory=MEMORY):
        pass
    for _ in map_tasks(lambda i: write_repeated(out, buckets, i, parts, len(groups)), range(parts), memory=MEMORY):
        pass
    remove_files(out, [_hashes_path(out, i).relative_to(out).as_posix() for i in range(len(groups))])
    return parts


def write_hashes(out: Path, buckets: Sequence[int], number: int, parts: int) -> None:
    """Writes the hashes of some buckets as one file of a row group a part."""
    hashes, whose = _hashes(out, buckets)
    part_of = hashes % parts
    content = io.BytesIO()
    table = pa.table({"hash": hashes, "bucket": whose})
    with pq.ParquetWriter(content, table.schema, compression="none", use_dictionary=["bucket"]) as writer:
        for part in range(parts):
            writer.write_table(table.filter(pa.array(part_of == part)), row_group_size=max(len(hashes), 1))
    write_atomically(_hashes_path(out, number), content.getvalue())


def write_repeated(out: Path, buckets: Sequence[int], part: int, parts: int, files: int) -> None:
    """Writes which kept clips another bucket has under an earlier name; of the hashes of one part of `parts`.

    Args:
        files: into which `write_hashes` has divided the hashes; 0 where it was not asked to.
    """
    hashes, whose = _hashes_of_part(out, part, files) if files else _hashes(out, buckets)
    order = np.argsort(hashes, kind="stable")
    hashes, whose = hashes[order], whose[order]
    shared = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    having: list[int] = np.unique(whose[np.isin(hashes, shared)]).tolist() if len(shared) else []
    first: dict[ClipId, tuple[str, int, int]] = {}
    places: list[tuple[ClipId, tuple[str, int, int]]] = []
    for bucket in having:
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
    write_bucket_rows(_path(out, part), pa.table(columns))


def read_repeated(out: Path, bucket: int, parts: int) -> list[ClipId]:
    """Clips of a bucket that another one has under an earlier name, in order."""
    clips: list[ClipId] = []
    for part in range(parts):
        for rows in read_bucket_rows(_path(out, part), bucket):
            clips += rows["clip_id"].to_pylist()
    return sorted(clips)


def write_bucket_rows(path: Path, table: pa.Table) -> None:
    """Writes a table, in the order of its first column `bucket`, so that a bucket's rows can be read by themselves."""
    content = io.BytesIO()
    pq.write_table(table, content, row_group_size=_ROWS_A_GROUP, compression="zstd")
    write_atomically(path, content.getvalue())


def read_bucket_rows(path: Path, bucket: int) -> Iterator[pa.Table]:
    """The rows of a bucket in what `write_bucket_rows` wrote, by the piece."""
    with path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            buckets = parquet.metadata.row_group(group).column(0).statistics
            # A group without rows has no statistics.
            if buckets is not None and buckets.min <= bucket <= buckets.max:
                yield parquet.read_row_group(group).filter(pc.field("bucket") == bucket)


def _path(out: Path, part: int) -> Path:
    return out / "work" / "corpus" / f"repeated-{part:04d}.parquet"


def _hashes_path(out: Path, number: int) -> Path:
    return out / "work" / "corpus" / f"hashes-{number:04d}.parquet"


def _hashes(out: Path, buckets: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(int64 hashes of kept clips, each once a bucket; int32 whose they are)."""
    of_buckets = []
    for bucket in buckets:
        table = read_parquet(corpus_path(out, bucket, "parquet"), ("hash", "kept"))
        of_buckets.append(np.unique(table["hash"].to_numpy()[table["kept"].to_numpy()]))
    whose = np.repeat(np.array(buckets, np.int32), [len(hashes) for hashes in of_buckets])
    return np.concatenate([np.zeros(0, np.int64), *of_buckets]), whose


def _hashes_of_part(out: Path, part: int, files: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of one part, from what `write_hashes` wrote."""
    tables = []
    for number in range(files):
        with _hashes_path(out, number).open("rb") as file:
            tables.append(pq.ParquetFile(file).read_row_group(part))
    table = pa.concat_tables(tables)
    return table["hash"].to_numpy(), table["bucket"].to_numpy()


def _rows(out: Path, bucket: int, hashes: np.ndarray) -> list[dict[str, object]]:
    """Kept clips whose hash is one of these: names and places."""
    table = read_parquet(corpus_path(out, bucket, "parquet"), ("clip_id", "hash", "name", "start_sample", "kept"))
    chosen = table["kept"].to_numpy() & np.isin(table["hash"].to_numpy(), hashes)
    rows: list[dict[str, object]] = table.take(np.flatnonzero(chosen)).to_pylist()
    return rows
