"""Every input is decoded once to its end: that finds damage, hashes the PCM and chooses where long ones are cut.

Entries come in blocks of up to 1,024 that end after about one entry in 512, by its path: one more row in a manifest
changes the block that it falls into and no other. What a block's scan found is a file of `work/scans`, named by the
paths and stamps in it and by how it was scanned; a block that has one is not scanned again.
"""

import dataclasses
import os
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.inputs import media
from pipelines.inputs.channels import Channels
from pipelines.inputs.container import may_be_sound
from pipelines.inputs.entries import Entry
from pipelines.inputs.listing import storable
from pipelines.inputs.media_file import MediaFile
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import JobError, UserError
from voxmill.core.hashing import fingerprint, sha256_text
from voxmill.core.local_ray.tasks import map_tasks
from voxmill.core.storage import storage_failure
from voxmill.data.records import AudioTrack, RecordingWarning
from voxmill.data.schemas import from_table, read_parquet, to_table, write_parquet

BLOCK_ROWS = 1024
ONE_IN = 512
FORMAT = 2
"""Of the files of `work/scans`, and of what a scan finds."""
_WITHOUT_HEADER = re.compile("mp[123](float)?|aac(_latm)?|e?ac3|dca|truehd|mlp|amr[nw]b|g729|gsm")
"""Codecs of which FFmpeg takes a few bytes alike for a file."""
_MIN_CHANCE = 0.5
SAVE_SECONDS = 30.0
"""A block that takes longer keeps what it has found so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the scan of one input found: a readable recording's `recording_id` and the rest, or a `problem`.

    location: the same for two names of the same bytes. The rest is as in `media.MediaInfo`.
    """

    location: str = ""
    problem: str | None = None
    detail: str = ""
    recording_id: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    codec: str | None = None
    num_samples: int | None = None
    scale: float = 1.0
    read: tuple[media.ReadChannel, ...] = ()
    other_tracks: tuple[AudioTrack, ...] = ()
    warnings: tuple[RecordingWarning, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """What a scan depends on beside the file: the longest window, in seconds, and the channels that are wanted."""

    window_seconds: float = 300.0
    channels: Channels = "auto"


def scan_entry(entry: Entry, options: ScanOptions) -> Scan:
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
        if not entry.claimed and "://" in entry.path and not may_be_sound(file):
            return Scan(location=file.location, problem="not_audio", detail="does not begin like sound")
        info = media.scan(file, options.window_seconds, channels=options.channels)
    except AudioProblem as error:
        detail = f"line {entry.line}: {error.detail}" if entry.line and error.reason == "missing" else error.detail
        return Scan(location=file.location, problem=error.reason, detail=detail)
    if not entry.claimed and _is_doubtful(info):
        return Scan(location=file.location, problem="not_audio", detail="opens as audio, but is hardly any")
    # The rate is part of the identity: the same samples at another rate sound different.
    return Scan(
        location=file.location,
        recording_id=sha256_text(f"{info.pcm_sha256}:{info.sample_rate}")[:32],
        sample_rate=info.sample_rate,
        channels=info.channels,
        codec=info.codec,
        num_samples=info.num_samples,
        scale=info.scale,
        read=info.read,
        other_tracks=info.other_tracks,
        warnings=info.warnings,
    )


def _is_doubtful(info: media.MediaInfo) -> bool:
    """Whether a file that is not called a recording may have been taken for one by chance, by a few bytes alike."""
    damaged = any(warning.kind == "damaged_data" for warning in info.warnings)
    return _WITHOUT_HEADER.fullmatch(info.codec) is not None and (
        damaged or info.num_samples < _MIN_CHANCE * info.sample_rate
    )


def is_other(claimed: bool, problem: str | None) -> bool:
    """Whether an input is no recording, nor called one: it is counted, and has no row."""
    return not claimed and problem in ("not_audio", "decode_error", "empty_file")


# ---- blocks


def blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries in blocks that are cut by content; local paths become absolute."""
    block: list[Entry] = []
    for entry in entries:
        if "://" not in entry.path:
            entry = _local(entry)
        block.append(entry)
        cut = zlib.crc32(f"{entry.path}:{entry.bytes_offset}:{entry.row}".encode("utf-8", "surrogatepass"))
        if len(block) == BLOCK_ROWS or cut % ONE_IN == 0:
            yield block
            block = []
    if block:
        yield block


def _local(entry: Entry) -> Entry:
    text_path = entry.text_path
    if text_path is not None and "://" not in text_path:
        entry = dataclasses.replace(entry, text_path=os.path.abspath(text_path))
    if not entry.path.isascii() and storable(entry.path) != entry.path:
        detail = entry.detail or "its name is not UTF-8; rename it"
        problem = entry.problem or "bad_name"
        return dataclasses.replace(entry, path="", text_path=None, problem=problem, detail=detail)
    if not entry.path or os.path.isabs(entry.path):
        return entry
    return dataclasses.replace(entry, path=os.path.abspath(entry.path))


def stamped(block: Sequence[Entry]) -> list[Entry]:
    """Entries with a stamp where a local file gives one; one that is not there has none."""
    return [entry if "://" in entry.path or not entry.path else _with_stamp(entry) for entry in block]


def _with_stamp(entry: Entry) -> Entry:
    try:
        stat = os.stat(entry.path)
    except OSError:
        return entry
    return dataclasses.replace(entry, stamp=f"{stat.st_size}:{stat.st_mtime_ns}")


def block_name(block: Sequence[Entry], options: ScanOptions) -> str:
    """Of a block's file: what a scan depends on, and nothing that a manifest may say otherwise."""
    places = [
        [
            os.fsencode(entry.path).hex(),
            entry.bytes_offset,
            entry.bytes_size,
            entry.row,
            entry.claimed,
            entry.stamp,
            entry.problem,
            entry.detail,
        ]
        for entry in block
    ]
    return fingerprint([FORMAT, options.window_seconds, options.channels, places])[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedBlock:
    """What the driver learns of a block: its file in `work/scans`, and sums.

    others: files that are no recordings. unseen: local files that the worker on `node` did not find.
    """

    name: str
    rows: int
    others: int
    seconds: float
    node: str
    unseen: tuple[str, ...] = ()


class ScanStore:
    """`work/scans`: one file a block, and what is known so far of one that is being scanned."""

    def __init__(self, out: Path, options: ScanOptions):
        self.folder, self.options = out / "work" / "scans", options

    def path(self, name: str) -> Path:
        """Where a block's file lies."""
        return self.folder / name[:2] / f"{name}.parquet"

    def read(self, name: str) -> pa.Table:
        """What was found, a row an entry.

        Raises:
            JobError: the file is damaged. FileNotFoundError: there is none.
        """
        try:
            return read_parquet(self.path(name))
        except pa.ArrowInvalid as error:
            raise JobError(f"{self.path(name)}: damaged ({error}); remove it and run the command again") from None

    def write(self, name: str, scans: pa.Table) -> None:
        """Writes a block's file, whole or not at all."""
        write_parquet(self.path(name), scans)
        self._partial(name).unlink(missing_ok=True)

    def _partial(self, name: str) -> Path:
        return self.folder / "partial" / f"{name}.parquet"

    def read_partial(self, name: str) -> list[Scan]:
        """What an interrupted run found of a block's first entries."""
        try:
            return from_table(Scan, read_parquet(self._partial(name)))
        except FileNotFoundError:
            return []
        except pa.ArrowInvalid as error:
            raise JobError(f"{self._partial(name)}: damaged ({error}); remove it and run again") from None

    def write_partial(self, name: str, scans: Sequence[Scan]) -> None:
        """Keeps what is known of a block's first entries."""
        write_parquet(self._partial(name), to_table(scans, Scan))


def scan_block(block: Sequence[Entry], store: ScanStore) -> ScannedBlock:
    """Scans what is not known of a block in this process, and writes its file.

    Raises:
        StorageError: storage does not give what it has.
    """
    known = _Known(block, store)
    for number in known.open:
        known.put(number, scan_entry(known.entries[number], store.options))
    return known.finish()


class _Known:
    """What is known of a block, from a finished scan or an interrupted one; `open` has the numbers of the other rows.

    An object that was not there is looked for again: another stamp tells of a local file that has come, but an object
    of a manifest has none.
    """

    def __init__(self, block: Sequence[Entry], store: ScanStore) -> None:
        self.entries, self._store = stamped(block), store
        self._name = block_name(self.entries, store.options)
        self._table: pa.Table | None = None
        self._scans: list[Scan | None] = []
        if store.path(self._name).exists():
            self._table = store.read(self._name)
            problems = self._table["problem"].to_pylist()
            absent = [number for number, entry in enumerate(self.entries) if "://" in entry.path]
            self.open = [number for number in absent if problems[number] == "missing"]
            if self.open:
                self._scans = [*from_table(Scan, self._table)]
        else:
            before = store.read_partial(self._name)
            self._scans = [*before, *[None] * (len(self.entries) - len(before))]
            self.open = list(range(len(before), len(self.entries)))
        self._saved = time.monotonic()

    def put(self, number: int, scan: Scan) -> None:
        """Keeps what was found of a row; now and then also where a later run finds it."""
        self._scans[number] = scan
        if self._table is None and time.monotonic() - self._saved > SAVE_SECONDS:
            self._store.write_partial(self._name, [one for one in self._scans[: number + 1] if one is not None])
            self._saved = time.monotonic()

    def finish(self) -> ScannedBlock:
        """Writes the block's file where something was found."""
        if self.open:
            scans = [one for one in self._scans if one is not None]
            assert len(scans) == len(self.entries)
            self._table = to_table(scans, Scan)
            self._store.write(self._name, self._table)
        assert self._table is not None
        return _summary(self.entries, self._name, self._table)


def _summary(entries: Sequence[Entry], name: str, table: pa.Table) -> ScannedBlock:
    seconds = pc.sum(pc.divide(pc.cast(table["num_samples"], pa.float64()), table["sample_rate"])).as_py()
    problems = table["problem"].to_pylist()
    unseen = [entry.path for entry, problem in zip(entries, problems, strict=True) if _is_unseen(entry, problem)]
    return ScannedBlock(
        name=name,
        rows=len(entries),
        others=sum(is_other(entry.claimed, problem) for entry, problem in zip(entries, problems, strict=True)),
        seconds=seconds or 0.0,
        node=socket.gethostname(),
        unseen=tuple(unseen),
    )


def _is_unseen(entry: Entry, problem: str | None) -> bool:
    return problem == "missing" and entry.problem is None and "://" not in entry.path


def check_seen(paths: Iterable[str], node: str) -> None:
    """Raises:
    JobError: `node` did not find a file that this machine sees: its absence there is then no news about the file.
    """
    for path in paths:
        if os.path.exists(path):
            raise JobError(f"{path} is not visible on node {node}; mount IN there, or name a URI")


def scan_by_entries(block: Sequence[Entry], store: ScanStore, *, join: Callable[[], None]) -> ScannedBlock:
    """Scans a block with a Ray task an entry, so that all of a small corpus's workers are busy and an entry that ends
    its process takes no other with it.

    Args:
        join: joins Ray; called where anything is to be scanned.

    Raises:
        JobError: the machine, not a file, is at fault.
    """
    known = _Known(block, store)
    if not known.open:
        return known.finish()
    join()
    options = store.options

    def scan_recording(item: tuple[int, Entry]) -> tuple[Scan, str]:
        return scan_entry(item[1], options), socket.gethostname()

    items = [(number, known.entries[number]) for number in known.open]
    # A file that ends the decoder's process is tried twice; then that file is rejected and the job continues.
    for (number, entry), (scan, node) in map_tasks(
        scan_recording, items, ordered=True, max_retries=1, on_error=_failed
    ):
        if _is_unseen(entry, scan.problem):
            check_seen([entry.path], node)
        known.put(number, scan)
    return known.finish()


def _failed(item: tuple[int, Entry], error: Exception) -> tuple[Scan, str]:
    entry = item[1]
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
    failure = storage_failure(cause or error)
    return failure if isinstance(failure, UserError) else JobError(f"{what}: {failure or cause or error}")
