"""Plans a corpus: in the driver where it is small, otherwise by tasks over blocks, partitions and buckets.

Of a large corpus the driver holds the number of its blocks and sums. A task a block scans it and writes its rows; tasks
over some blocks divide their rows by bucket and their keys by content; a task a partition of the keys finds what
repeats; a task a partition of the buckets writes their plans.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipelines.config import AnnotateConfig, LabelConfig
from pipelines.inputs.bucket_rows import (
    KEYS,
    ROWS,
    Repeat,
    buckets_of,
    content_keys,
    find_repeats,
    partition_of_keys,
    plan_bucket,
    plan_rows,
)
from pipelines.inputs.entries import Entry
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.scan import (
    ScannedBlock,
    ScanOptions,
    ScanStore,
    blocks,
    check_seen,
    process_died,
    scan_block,
    scan_by_entries,
    task_error,
)
from pipelines.inputs.shuffle import read_partition, write_divided
from pipelines.units.plan_files import fix_buckets, planned_buckets, remove_bucket, write_bucket
from voxmill.core.errors import UserError
from voxmill.core.files import remove_folder
from voxmill.core.local_ray import join_ray
from voxmill.core.local_ray.tasks import map_tasks
from voxmill.core.progress import Progress
from voxmill.data.schemas import from_table, read_parquet, schema_of, to_table, write_parquet

SMALL_BLOCKS = 4
"""A corpus of so many blocks is planned in the driver, and scanned with a task an entry."""
BLOCKS_A_TASK = 32
MAX_PRINTED = 10
ROWS_A_PARTITION = 65_536
MAX_PARTITIONS = 1024

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Entries of the corpus from its number `first` on; `number` counts blocks from 0."""

    number: int
    first: int
    entries: list[Entry]


def open_inputs(source: str) -> Iterator[Entry]:
    """Entries of IN; tars are read by Ray tasks.

    Raises:
        UserError: IN names nothing.
    """
    return read_inputs(source, _in_tasks)


def plan_corpus(entries: Iterator[Entry], out: Path, config: AnnotateConfig, progress: Progress) -> None:
    """Scans what was not scanned, and writes the plan of every bucket.

    Raises:
        UserError: no input is a recording, or `write.buckets` is not what OUT was made with.
        JobError: the machine or the storage is at fault; what is scanned stays scanned.
    """
    found = _numbered(_with_refusals(entries, progress))
    head = list(itertools.islice(found, SMALL_BLOCKS + 1))
    options = ScanOptions(window_seconds=config.label.window_seconds, channels=config.label.channels)
    scans = ScanStore(out, options)
    if len(head) <= SMALL_BLOCKS:
        _plan_small(head, out, scans, config, progress)
    else:
        _LargePlan(out, scans, config).run(itertools.chain(head, found), progress)


def _with_refusals(entries: Iterable[Entry], progress: Progress) -> Iterator[Entry]:
    """The entries; the first ones that are refused for what their manifest says are printed as they come."""
    printed = 0
    for entry in entries:
        if entry.refused and printed < MAX_PRINTED:
            printed += 1
            progress.print(f"{entry.name}: {entry.refused}" + ", and maybe more" * (printed == MAX_PRINTED))
        yield entry


def _numbered(entries: Iterable[Entry]) -> Iterator[_Block]:
    first = 0
    for number, block in enumerate(blocks(entries)):
        yield _Block(number=number, first=first, entries=block)
        first += len(block)


def _in_tasks(function: Callable[[Entry], list[Entry]], tars: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The recordings of tars, a Ray task each, in order."""
    _join()
    for _, found in _mapped("reading a tar", function, tars, ordered=True):
        yield found


def _join() -> None:
    import ray

    if not ray.is_initialized():
        join_ray()


def _mapped(
    what: str, function: Callable[[T], R], items: Iterable[T], *, ordered: bool = False
) -> Iterator[tuple[T, R]]:
    """`map_tasks`, a failed task as one line."""
    from ray.exceptions import RayError

    try:
        yield from map_tasks(function, items, ordered=ordered)
    except (RayError, OSError) as error:
        raise task_error(what, error) from None


# ---- a small corpus


def _plan_small(
    head: Sequence[_Block], out: Path, scans: ScanStore, config: AnnotateConfig, progress: Progress
) -> None:
    scanned: list[ScannedBlock] = []
    with progress.stage("Scanning", sum(len(block.entries) for block in head), "recordings") as bar:
        for block in head:
            scanned.append(scan_by_entries(block.entries, scans, join=_join))
            bar.advance(len(block.entries))
    _check_any(sum(block.rows for block in scanned), sum(block.others for block in scanned))
    count = fix_buckets(out, sum(block.seconds for block in scanned) / 3600, config.write.buckets)
    tables = [
        plan_rows(block.first, block.entries, scans.read(done.name)) for block, done in zip(head, scanned, strict=True)
    ]
    rows = pa.concat_tables(tables)
    repeats = find_repeats(content_keys(rows))
    _write_buckets(rows, buckets_of(rows, count), repeats, out, config.label)
    _remove_empty(out, {int(bucket) for bucket in np.unique(buckets_of(rows, count))})


def _check_any(rows: int, others: int) -> None:
    if others == rows:
        raise UserError(f"IN holds no recording: of {rows} files, none opens as audio")


def _write_buckets(rows: pa.Table, of_row: np.ndarray, repeats: list[Repeat], out: Path, label: LabelConfig) -> None:
    by_order = {repeat.order: repeat for repeat in repeats}
    order = np.argsort(of_row, kind="stable")
    ordered, sorted_buckets = rows.take(pa.array(order)), of_row[order]
    for bucket in np.unique(of_row):
        first, last = np.searchsorted(sorted_buckets, [bucket, bucket + 1])
        mine = ordered.slice(int(first), int(last - first))
        write_bucket(out, int(bucket), plan_bucket(mine, by_order, label, int(bucket)))


def _remove_empty(out: Path, held: set[int]) -> None:
    for bucket in planned_buckets(out):
        if bucket not in held:
            remove_bucket(out, bucket)


# ---- a large one


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """How a large corpus is divided: blocks, so many of them a task, partitions, and buckets of the dataset."""

    blocks: int
    blocks_a_task: int
    partitions: int
    buckets: int

    @property
    def groups(self) -> int:
        return -(-self.blocks // self.blocks_a_task)

    def blocks_of(self, group: int) -> range:
        """Numbers of the blocks that a task gets."""
        return range(group * self.blocks_a_task, min((group + 1) * self.blocks_a_task, self.blocks))


class _LargePlan:
    """The steps over a corpus that no process holds."""

    def __init__(self, out: Path, scans: ScanStore, config: AnnotateConfig) -> None:
        self.out, self.scans, self.config = out, scans, config
        self.files = _ShuffleFiles(out)

    def run(self, found: Iterator[_Block], progress: Progress) -> None:
        _join()
        self.files.remove()
        rows, others, seconds, count = self._scan(found, progress)
        _check_any(rows, others)
        buckets = fix_buckets(self.out, seconds / 3600, self.config.write.buckets)
        wanted = 1 << max(-(-rows // ROWS_A_PARTITION) - 1, 0).bit_length()
        partitions = min(wanted, buckets, MAX_PARTITIONS)
        sizes = _Sizes(blocks=count, blocks_a_task=BLOCKS_A_TASK, partitions=partitions, buckets=buckets)
        self._divide(sizes, progress)
        self._repeats(sizes, progress)
        self._plan(sizes, progress)
        self.files.remove()

    def _scan(self, found: Iterator[_Block], progress: Progress) -> tuple[int, int, float, int]:
        """(rows, those that are no recordings, seconds, blocks) of the corpus; every block has a file with its rows."""
        scans, files = self.scans, self.files

        def scan(block: _Block) -> ScannedBlock:
            done = scan_block(block.entries, scans)
            files.write_rows(block, scans, done)
            return done

        def scan_apart(block: _Block, error: Exception) -> ScannedBlock:
            # An entry ended the process of its block, twice: each is tried by itself.
            if not process_died(error):
                raise task_error(f"scanning {block.entries[0].name!r} and the next", error) from None
            done = scan_by_entries(block.entries, scans, join=_join)
            files.write_rows(block, scans, done)
            return done

        rows, others, seconds, count = 0, 0, 0.0, 0
        with progress.stage("Scanning", None, "recordings") as bar:
            for block, done in map_tasks(scan, found, max_retries=1, on_error=scan_apart):
                check_seen(done.unseen, done.node)
                rows, others = rows + done.rows, others + done.others
                seconds, count = seconds + done.seconds, count + 1
                bar.advance(len(block.entries))
        return rows, others, seconds, count

    def _divide(self, sizes: _Sizes, progress: Progress) -> None:
        files = self.files

        def divide(group: int) -> None:
            rows = pa.concat_tables([read_parquet(files.rows(number)) for number in sizes.blocks_of(group)])
            target = buckets_of(rows, sizes.buckets) % sizes.partitions
            write_divided(files.divided("rows", group), rows, target, sizes.partitions)
            keys = content_keys(rows).append_column("target", pa.array(target))
            by_key = partition_of_keys(keys, sizes.partitions)
            write_divided(files.divided("keys", group), keys, by_key, sizes.partitions)

        with progress.stage("Dividing", sizes.groups, "parts") as bar:
            for _ in _mapped("planning", divide, range(sizes.groups)):
                bar.advance(1)

    def _repeats(self, sizes: _Sizes, progress: Progress) -> None:
        files = self.files

        def find(partition: int) -> None:
            paths = (files.divided("keys", group) for group in range(sizes.groups))
            keys = read_partition(paths, partition, KEYS.append(pa.field("target", pa.int64())))
            repeats = to_table(find_repeats(keys), Repeat)
            target_of = dict(zip(keys["order"].to_pylist(), keys["target"].to_pylist(), strict=True))
            target = np.array([target_of[order] for order in repeats["order"].to_pylist()], dtype=np.int64)
            write_divided(files.divided("repeats", partition), repeats, target, sizes.partitions)

        with progress.stage("Repeats", sizes.partitions, "parts") as bar:
            for _ in _mapped("planning", find, range(sizes.partitions)):
                bar.advance(1)

    def _plan(self, sizes: _Sizes, progress: Progress) -> None:
        files, out, label = self.files, self.out, self.config.label

        def plan(partition: int) -> None:
            paths = (files.divided("rows", group) for group in range(sizes.groups))
            rows = read_partition(paths, partition, ROWS)
            found = (files.divided("repeats", part) for part in range(sizes.partitions))
            repeats = from_table(Repeat, read_partition(found, partition, schema_of(Repeat)))
            of_row = buckets_of(rows, sizes.buckets)
            _write_buckets(rows, of_row, repeats, out, label)
            held = set(np.unique(of_row).tolist())
            for bucket in range(partition, sizes.buckets, sizes.partitions):
                if bucket not in held:
                    remove_bucket(out, bucket)

        with progress.stage("Planning", sizes.partitions, "parts") as bar:
            for _ in _mapped("planning", plan, range(sizes.partitions)):
                bar.advance(1)


@dataclass(frozen=True, slots=True)
class _ShuffleFiles:
    """Names of the files between the steps."""

    out: Path

    @property
    def folder(self) -> Path:
        return self.out / "work" / "shuffle"

    def rows(self, number: int) -> Path:
        """The rows of a block."""
        return self.folder / "blocks" / f"{number // 1000:06d}" / f"{number:09d}.parquet"

    def divided(self, kind: str, number: int) -> Path:
        """A file of one task for all tasks of the next step."""
        return self.folder / kind / f"{number:06d}.arrow"

    def write_rows(self, block: _Block, scans: ScanStore, done: ScannedBlock) -> None:
        """Writes what is known of a block that was scanned."""
        write_parquet(self.rows(block.number), plan_rows(block.first, block.entries, scans.read(done.name)))

    def remove(self) -> None:
        """Removes all, also what an interrupted run left."""
        remove_folder(self.folder)
