"""Every input is decoded once to its end: that finds damage, hashes the PCM and chooses where long ones are cut.

Entries come in blocks of up to 1,024 that end after about one entry in 512, by its path: one more row in a manifest
changes the block that it falls into and no other. What a block's scan found is a file of `work/scans`, named by the
paths and stamps in it and by how it was scanned; a block that has one is not scanned again.
"""

import dataclasses
import os
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.inputs import media
from pipelines.inputs.entries import Entry
from pipelines.inputs.media_file import MediaFile
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint, sha256_text
from voxmill.core.local_ray import map_tasks
from voxmill.core.storage import arrow_filesystem, is_remote, storage_failure, to_path
from voxmill.data.records import Channel
from voxmill.data.schemas import from_table, to_table, write_parquet

BLOCK_ROWS = 1024
ONE_IN = 512
FORMAT = 1
"""Of the files of `work/scans`, and of what a scan finds."""
SAVE_SECONDS = 30.0
"""A block that takes longer keeps what it has found so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the scan of one input found: a readable recording's `recording_id` and the rest, or a `problem`.

    location: the same for two names of the same bytes. `ends`: of its windows, in samples; each begins where the one
    before it ends. The rest is as in `media.MediaInfo`.
    """

    location: str = ""
    problem: str | None = None
    detail: str = ""
    recording_id: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    codec: str | None = None
    num_samples: int | None = None
    channel: Channel = "mean"
    digests: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()


def scan_entry(entry: Entry, window_seconds: float) -> Scan:
    """Decodes one input to its end.

    Raises:
        StorageError: storage does not give what it has.
    """
    if entry.problem is not None:
        return Scan(problem=entry.problem, detail=entry.detail)
    file = MediaFile(
        path=entry.path,
        name=entry.name,
        bytes_offset=entry.bytes_offset,
        bytes_size=entry.bytes_size,
        row=entry.row,
    )
    try:
        info, bounds = media.scan(file, window_seconds)
    except AudioProblem as error:
        detail = f"line {entry.line}: {error.detail}" if entry.line and error.reason == "missing" else error.detail
        return Scan(location=file.location, problem=error.reason, detail=detail)
    # The rate is part of the identity: the same samples at another rate sound different.
    return Scan(
        location=file.location,
        detail=info.warning,
        recording_id=sha256_text(f"{info.pcm_sha256}:{info.sample_rate}")[:32],
        sample_rate=info.sample_rate,
        channels=info.channels,
        codec=info.codec,
        num_samples=info.num_samples,
        channel=info.channel,
        digests=info.digests,
        ends=tuple(end for _, end in bounds),
    )


# ---- blocks


def blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries in blocks that are cut by content; local paths become absolute."""
    block: list[Entry] = []
    for entry in entries:
        if entry.path and "://" not in entry.path and not os.path.isabs(entry.path):
            entry = dataclasses.replace(entry, path=os.path.abspath(entry.path))
        block.append(entry)
        cut = zlib.crc32(f"{entry.path}:{entry.bytes_offset}:{entry.row}".encode("utf-8", "surrogatepass"))
        if len(block) == BLOCK_ROWS or cut % ONE_IN == 0:
            yield block
            block = []
    if block:
        yield block


def stamped(block: Sequence[Entry]) -> list[Entry]:
    """Entries with a stamp where a local file gives one; one that is not there has none."""
    return [entry if "://" in entry.path or not entry.path else _with_stamp(entry) for entry in block]


def _with_stamp(entry: Entry) -> Entry:
    try:
        stat = os.stat(entry.path)
    except OSError:
        return entry
    return dataclasses.replace(entry, stamp=f"{stat.st_size}:{stat.st_mtime_ns}")


def block_name(block: Sequence[Entry], window_seconds: float) -> str:
    """Of a block's file: what a scan depends on, and nothing that a manifest may say otherwise."""
    places = [
        [os.fsencode(entry.path).hex(), entry.bytes_offset, entry.bytes_size, entry.row, entry.stamp, entry.problem]
        for entry in block
    ]
    return fingerprint([FORMAT, window_seconds, places])[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedBlock:
    """What the driver learns of a block: its file in `work/scans`, and sums.

    unseen: local files that the worker on `node` did not find.
    """

    name: str
    rows: int
    seconds: float
    node: str
    unseen: tuple[str, ...] = ()


class ScanStore:
    """`work/scans`: one file a block, and what is known so far of one that is being scanned."""

    def __init__(self, out: Path, window_seconds: float):
        self.folder, self.window_seconds = out / "work" / "scans", window_seconds

    def path(self, name: str) -> Path:
        """Where a block's file lies."""
        return self.folder / name[:2] / f"{name}.parquet"

    def read(self, name: str) -> pa.Table:
        """What was found, a row an entry.

        Raises:
            JobError: the file is damaged. FileNotFoundError: there is none.
        """
        try:
            with self.path(name).open("rb") as file:
                return pq.read_table(file)
        except pa.ArrowInvalid as error:
            raise JobError(f"{self.path(name)}: damaged ({error}); remove it and run the command again") from None

    def write(self, name: str, scans: Sequence[Scan]) -> None:
        """Writes a block's file, whole or not at all."""
        write_parquet(self.path(name), to_table(scans, Scan))
        self._partial(name).unlink(missing_ok=True)

    def _partial(self, name: str) -> Path:
        return self.folder / "partial" / f"{name}.parquet"

    def read_partial(self, name: str) -> list[Scan]:
        """What an interrupted run found of a block's first entries."""
        try:
            with self._partial(name).open("rb") as file:
                return from_table(Scan, pq.read_table(file))
        except FileNotFoundError:
            return []
        except pa.ArrowInvalid as error:
            raise JobError(f"{self._partial(name)}: damaged ({error}); remove it and run again") from None

    def write_partial(self, name: str, scans: Sequence[Scan]) -> None:
        """Keeps what is known of a block's first entries."""
        write_parquet(self._partial(name), to_table(scans, Scan))


def scan_block(block: Sequence[Entry], store: ScanStore) -> ScannedBlock:
    """Scans a block in this process unless it was, and writes its file.

    Raises:
        StorageError: storage does not give what it has.
    """
    entries = stamped(block)
    name = block_name(entries, store.window_seconds)
    if store.path(name).exists():
        return summary_of(entries, name, store.read(name))
    scans = store.read_partial(name)
    saved = time.monotonic()
    for entry in entries[len(scans) :]:
        scans.append(scan_entry(entry, store.window_seconds))
        if time.monotonic() - saved > SAVE_SECONDS:
            store.write_partial(name, scans)
            saved = time.monotonic()
    store.write(name, scans)
    return summary_of(entries, name, to_table(scans, Scan))


def summary_of(entries: Sequence[Entry], name: str, table: pa.Table) -> ScannedBlock:
    """The sums of a block, and local files that this machine does not see."""
    import pyarrow.compute as pc

    seconds = pc.sum(pc.divide(pc.cast(table["num_samples"], pa.float64()), table["sample_rate"])).as_py()
    unseen = [
        entry.path
        for entry, problem in zip(entries, table["problem"].to_pylist(), strict=True)
        if problem == "missing" and entry.problem is None and "://" not in entry.path
    ]
    return ScannedBlock(
        name=name, rows=len(entries), seconds=seconds or 0.0, node=socket.gethostname(), unseen=tuple(unseen)
    )


def check_seen(block: ScannedBlock) -> None:
    """Raises:
    JobError: a worker did not find what this machine does: a file's absence is then no news about the file.
    """
    for path in block.unseen:
        if os.path.lexists(path):
            raise JobError(f"{path} is not visible on node {block.node}; mount IN there, or name a URI")


def scan_by_entries(block: Sequence[Entry], store: ScanStore) -> ScannedBlock:
    """Scans a block with a Ray task an entry, so that all of a small corpus's workers are busy and an entry that ends
    its process takes no other with it.

    Raises:
        JobError: the machine, not a file, is at fault.
    """
    entries = stamped(block)
    name = block_name(entries, store.window_seconds)
    if store.path(name).exists():
        return summary_of(entries, name, store.read(name))
    scans = store.read_partial(name)
    window_seconds, node = store.window_seconds, socket.gethostname()

    def scan_recording(entry: Entry) -> tuple[Scan, str]:
        return scan_entry(entry, window_seconds), socket.gethostname()

    # A file that ends the decoder's process is tried twice; then that file is rejected and the job continues.
    saved = time.monotonic()
    open_entries = entries[len(scans) :]
    for entry, (scan, where) in map_tasks(scan_recording, open_entries, ordered=True, max_retries=1, on_error=_failed):
        scans.append(scan)
        if scan.problem == "missing" and entry.problem is None and "://" not in entry.path:
            check_seen(ScannedBlock(name=name, rows=1, seconds=0.0, node=where, unseen=(entry.path,)))
        if time.monotonic() - saved > SAVE_SECONDS:
            store.write_partial(name, scans)
            saved = time.monotonic()
    store.write(name, scans)
    return dataclasses.replace(summary_of(entries, name, to_table(scans, Scan)), node=node)


def _failed(entry: Entry, error: Exception) -> tuple[Scan, str]:
    if not process_died(error):
        raise task_error(f"scanning {entry.name!r}", error) from None
    where = entry.path if "://" in entry.path else os.path.realpath(entry.path)
    detail = f"its decoder's process died ({type(error).__name__})"
    return Scan(location=where, problem="crash", detail=detail), socket.gethostname()


def process_died(error: Exception) -> bool:
    """Whether a task failed because its process died over it, not with its node."""
    from ray.exceptions import OutOfMemoryError, WorkerCrashedError

    return isinstance(error, WorkerCrashedError | OutOfMemoryError)


def task_error(what: str, error: Exception) -> Exception:
    """The one line of a failed Ray task."""
    from ray.exceptions import RayTaskError

    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, UserError | JobError):
        return cause
    return JobError(f"{what}: {storage_failure(cause or error) or cause or error}")
