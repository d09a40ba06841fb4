"""How a dataset is divided: buckets of whole sessions, and the names of their files. Free of Ray.

A session lies in one bucket, so whatever looks at a session (speakers, references, positions, packing) needs one bucket
alone, and a change touches only the buckets of the sessions that it concerns. The number of buckets is fixed when a
dataset is made. An index (`clips.parquet`, `rejected.parquet`, `recordings.parquet`, `latents.parquet`) is one file
where there is one bucket, and otherwise a folder of one part a bucket: pandas, polars, Ray Data, `datasets` and
`read_index` read both by the same call.
"""

import errno
import math
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from voxmill.core.hashing import short_hash
from voxmill.core.storage import arrow_filesystem, file_names

INDEXES = ("clips.parquet", "rejected.parquet", "recordings.parquet", "latents.parquet")
BUCKET_HOURS = 16.0
"""Recorded hours a bucket: about 8,000 clips, which one worker holds in memory."""
MAX_BUCKETS = 65_536
_PART_NAME = re.compile(r"[0-9a-f]{4}\.parquet")
_READERS = 16


def num_buckets(hours: float) -> int:
    """Buckets of a new dataset of so many recorded hours: a power of two, 1 to `MAX_BUCKETS`."""
    wanted = max(hours / BUCKET_HOURS, 1.0)
    return min(1 << math.ceil(math.log2(wanted)), MAX_BUCKETS)


def bucket_of(session: str, buckets: int) -> int:
    """The bucket of a session, 0 to `buckets` - 1, by its name alone."""
    return short_hash(session, 8) % buckets


def bucket_name(bucket: int) -> str:
    """How files and folders name a bucket: four hexadecimal digits."""
    return f"{bucket:04x}"


def part_path(out: Path, index: str, bucket: int, buckets: int) -> Path:
    """Where a bucket's part of an index lies: the index itself where there is one bucket."""
    return out / index if buckets == 1 else out / index / f"{bucket_name(bucket)}.parquet"


def index_parts(path: Path) -> list[Path]:
    """The files of an index, by bucket; none where it is not there. Files with other names are no parts of it."""
    if path.is_file():
        return [path]
    return [path / name for name in sorted(file_names(path)) if _PART_NAME.fullmatch(name)]


def read_index(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """An index whole, in the order of its buckets; `columns` that no part has are left out.

    A part that an older version wrote may lack columns or fields of structs: they are null there.

    Raises:
        FileNotFoundError: it is not there.
        pa.ArrowException, OSError: a part cannot be read; named.
    """
    parts = _parts(path)
    if len(parts) == 1:
        return read_part(parts[0], columns)
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(lambda part: read_part(part, columns), parts))
    return pa.concat_tables(tables, promote_options="permissive")


def stream_index(path: Path, columns: Sequence[str] | None = None, rows: int = 8192) -> Iterator[pa.Table]:
    """The same by the piece: tables of at most `rows` rows of one part each. A part lacks the columns it lacks.

    Raises:
        FileNotFoundError: it is not there.
        pa.ArrowException, OSError: a part cannot be read; named.
    """
    for part in _parts(path):
        yield from stream_part(part, columns, rows)


def stream_part(part: Path, columns: Sequence[str] | None = None, rows: int = 8192) -> Iterator[pa.Table]:
    """One file of an index by the piece, each of at most `rows` rows; `columns` that it lacks are left out.

    Raises:
        pa.ArrowException, OSError: it cannot be read; named.
    """
    with _named(part), _open(part) as file:
        for batch in file.iter_batches(rows, columns=_chosen(file, columns)):
            yield pa.Table.from_batches([batch])


def read_part(part: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One file of an index; `columns` that it lacks are left out.

    Raises:
        pa.ArrowException, OSError: it cannot be read; named.
    """
    with _named(part), _open(part) as file:
        return file.read(columns=_chosen(file, columns))


def count_rows(path: Path) -> int:
    """Rows of an index, from the footers of its parts.

    Raises:
        FileNotFoundError: it is not there.
        pa.ArrowException, OSError: a part cannot be read; named.
    """
    total = 0
    for part in _parts(path):
        with _named(part), _open(part) as file:
            total += file.metadata.num_rows
    return total


def _parts(path: Path) -> list[Path]:
    parts = index_parts(path)
    if not parts:
        raise FileNotFoundError(errno.ENOENT, "not there", str(path))
    return parts


def _open(part: Path) -> pq.ParquetFile:
    filesystem, name = arrow_filesystem(part)
    return pq.ParquetFile(name, filesystem=filesystem)


def _chosen(file: pq.ParquetFile, columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else [name for name in columns if name in file.schema_arrow.names]


@contextmanager
def _named(part: Path) -> Iterator[None]:
    """Arrow's errors do not say which file is damaged."""
    try:
        yield
    except pa.ArrowException as error:
        raise pa.ArrowInvalid(f"{part.name}: {error}") from None
