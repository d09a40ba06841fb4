"""`dataset.json`: what a finished dataset consists of, written last. Free of Ray.

Its parts and shards are whole when it names them, so a reader can tell a dataset from what a killed job left, and
`voxmill vacuum` what nothing names any more.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.hashing import sha256_bytes
from voxmill.core.storage import file_names
from voxmill.data.layout import INDEXES, index_parts, part_path
from voxmill.data.records import from_json_text, to_json_text

FORMAT = 1
FILE = "dataset.json"
EARLIER = "snapshots"
EARLIER_NAME = re.compile(r"\d{6}-[0-9a-f]{12}\.json")
ANNOTATED = INDEXES[:3]
"""The indexes that `voxmill annotate` writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """A tar of clips: its path below OUT, bytes, checksum, clips."""

    name: str
    size: int
    sha256: str
    clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """A bucket's part of an index: rows, bytes, checksum."""

    rows: int
    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes, rows: int) -> "PartFile":
        """Of a part with this content."""
        return cls(rows=rows, size=len(content), sha256=sha256_bytes(content))


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketFiles:
    """What one bucket consists of."""

    bucket: int
    clips: PartFile
    rejected: PartFile
    recordings: PartFile
    shards: tuple[ShardFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A dataset of `buckets` buckets, its files by bucket.

    norms: the file below OUT that its labels were made with. speakers: the parts of the table of its speakers.
    """

    format: int = FORMAT
    buckets: int
    norms: str | None = None
    speakers: tuple[str, ...] = ()
    files: tuple[BucketFiles, ...]


def write_snapshot(out: Path, snapshot: Snapshot) -> None:
    """Writes `dataset.json`, whole; what it names must be there. The one before is kept in `snapshots/`."""
    content, path = f"{to_json_text(snapshot)}\n".encode(), out / FILE
    before = path.read_bytes() if path.is_file() else None
    if before == content:
        return
    if before is not None:
        names, sha256 = _earlier_names(out), sha256_bytes(before)[:12]
        # A run that was ended between the two files has kept it already.
        if not names or not names[-1].endswith(f"-{sha256}.json"):
            number = int(names[-1].partition("-")[0]) + 1 if names else 0
            write_atomically(out / EARLIER / f"{number:06d}-{sha256}.json", before)
    write_atomically(path, content)


def earlier_snapshots(out: Path) -> list[Path]:
    """Files of the states before the present one, the latest last."""
    return [out / EARLIER / name for name in _earlier_names(out)]


def _earlier_names(out: Path) -> list[str]:
    return sorted(name for name in file_names(out / EARLIER) if EARLIER_NAME.fullmatch(name))


def read_snapshot(out: Path) -> Snapshot | None:
    """`dataset.json` of a dataset; None where it has none, as of older versions.

    Raises:
        UserError: it cannot be read, or is of a newer version.
    """
    path = out / FILE
    return read_snapshot_file(path) if path.is_file() else None


def read_snapshot_file(path: Path) -> Snapshot:
    """The same of one file, such as one of `earlier_snapshots`.

    Raises:
        UserError: it cannot be read, or is of a newer version.
    """
    content = path.read_bytes()
    try:
        snapshot = from_json_text(Snapshot, content)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read ({reason}); run `voxmill annotate` again") from None
    if snapshot.format != FORMAT:
        raise UserError(f"{path}: has format {snapshot.format}, this voxmill reads {FORMAT}; install a newer one")
    return snapshot


def missing_parts(out: Path, index: str, snapshot: Snapshot) -> list[Path]:
    """Parts of an index that the snapshot names and that are not there."""
    there = set(index_parts(out / index))
    named = (part_path(out, index, row.bucket, snapshot.buckets) for row in snapshot.files)
    return [path for path in named if path not in there]
