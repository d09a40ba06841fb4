"""How a dataset is divided: buckets of whole sessions, and the names of their files. Free of Ray.

A session lies in one bucket, so whatever looks at a session (speakers, references, positions, packing) needs one bucket
alone, and a change touches only the buckets of the sessions that it concerns. The number of buckets is fixed when a
dataset is made. An index (`clips.parquet`, `rejected.parquet`, `recordings.parquet`, `latents.parquet`) is one file
where there is one bucket, and otherwise a folder of one part a bucket: pandas, polars, Ray Data, `datasets` and
`read_index` read both by the same call.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads

from voxmill.core.storage import arrow_filesystem, file_names

INDEXES = ("clips.parquet", "rejected.parquet", "recordings.parquet", "latents.parquet")
BUCKET_HOURS = 16.0
"""Recorded hours a bucket: about 8,000 clips, which one worker holds in memory."""
MAX_BUCKETS = 65_536


def num_buckets(hours: float) -> int:
    """Buckets of a new dataset of so many recorded hours: a power of two, 1 to `MAX_BUCKETS`."""
    wanted = max(hours / BUCKET_HOURS, 1.0)
    return min(1 << math.ceil(math.log2(wanted)), MAX_BUCKETS)


def bucket_of(session: str, buckets: int) -> int:
    """The bucket of a session, 0 to `buckets` - 1, by its name alone."""
    digest = hashlib.blake2b(session.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % buckets


def bucket_name(bucket: int) -> str:
    """How files and folders name a bucket: four hexadecimal digits."""
    return f"{bucket:04x}"


def part_path(out: Path, index: str, bucket: int, buckets: int) -> Path:
    """Where a bucket's part of an index lies: the index itself where there is one bucket."""
    return out / index if buckets == 1 else out / index / f"{bucket_name(bucket)}.parquet"


def index_parts(path: Path) -> list[Path]:
    """The files of an index, by bucket; none where it is not there."""
    if path.is_file():
        return [path]
    return [path / name for name in sorted(file_names(path)) if name.endswith(".parquet") and name[0] not in "._"]


def read_index(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """An index whole, in the order of its buckets; `columns` that it lacks are left out.

    Raises:
        FileNotFoundError: it is not there.
        pa.ArrowException, OSError: it cannot be read.
    """
    parts = index_parts(path)
    if not parts:
        raise FileNotFoundError(2, "not there", str(path))
    filesystem, _ = arrow_filesystem(path)
    names = [arrow_filesystem(part)[1] for part in parts]
    dataset = pads.dataset(names, format="parquet", filesystem=filesystem)
    chosen = None if columns is None else [name for name in columns if name in dataset.schema.names]
    return dataset.to_table(columns=chosen)
