"""Plans a corpus: in the driver where it is small, by tasks over blocks, partitions and buckets where it is not."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipelines.config import AnnotateConfig, LabelConfig
from pipelines.inputs.bucket_rows import (
    Repeat,
    buckets,
    content_keys,
    find_repeats,
    partition_of_keys,
    plan_bucket,
    plan_rows,
)
from pipelines.inputs.entries import Entry
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.plan import FORMAT, PlanStore, PlanSummary, label_fingerprint
from pipelines.inputs.scan import (
    ScannedBlock,
    ScanStore,
    block_name,
    blocks,
    check_seen,
    process_died,
    scan_block,
    scan_by_entries,
    stamped,
    task_error,
)
from pipelines.inputs.shuffle import Shuffle
from voxmill.core.hashing import fingerprint
from voxmill.core.local_ray import join_ray, map_tasks
from voxmill.core.progress import Progress
from voxmill.core.storage import file_names, is_remote, to_path
from voxmill.data.layout import num_buckets
from voxmill.data.schemas import from_table, to_table

SMALL_BLOCKS = 4
"""A corpus of so many blocks is planned in the driver, and scanned with a task an entry."""
BLOCKS_A_TASK = 16
ROWS_A_PARTITION = 65_536
MAX_PARTITIONS = 1024

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Block:
    """Entries whose first is the corpus's number `first`."""

    first: int
    entries: list[Entry]


def plan_corpus(source: str, out: Path, config: AnnotateConfig, progress: Progress) -> PlanStore:
    """Scans what was not scanned and plans the corpus.

    Raises:
        UserError: IN names nothing.
        JobError: the machine or the storage is at fault; what is scanned stays scanned.
    """
    found = _numbered(read_inputs(source, _expand))
    head = list(itertools.islice(found, SMALL_BLOCKS + 1))
    store, scans = PlanStore(out), ScanStore(out, config.label.window_seconds)
    if len(head) <= SMALL_BLOCKS:
        _plan_small(head, store, scans, config, progress)
    else:
        _LargePlan(store, scans, config, progress).run(itertools.chain(head, found))
    return store


def _numbered(entries: Iterable[Entry]) -> Iterator[_Block]:
    first = 0
    for block in blocks(entries):
        yield _Block(first, block)
        first += len(block)


def _expand(function: object, items: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The recordings in tars, a Ray task each, in order."""
    from pipelines.inputs.tars import members

    join()
    for _, found in map_tasks(members, items, ordered=True, num_cpus=0.5):
        yield found


def join() -> None:
    """Joins Ray unless this process has."""
    import ray

    if not ray.is_initialized():
        join_ray()


# ---- in the driver


def _plan_small(
    head: Sequence[_Block], store: PlanStore, scans: ScanStore, config: AnnotateConfig, progress: Progress
) -> None:
    names = [block_name(stamped(block.entries), scans.window_seconds) for block in head]
    if not all(scans.path(name).exists() for name in names):
        join()
    scanned = []
    with progress.stage("Scanning", sum(len(block.entries) for block in head), "recordings") as bar:
        for block in head:
            scanned.append(scan_by_entries(block.entries, scans))
            bar.advance(len(block.entries))
    seconds = sum(block.seconds for block in scanned)
    count = _bucket_count(store, config, seconds)
    rows = pa.concat_tables(
        [plan_rows(block.first, block.entries, scans.read(done.name)) for block, done in zip(head, scanned, strict=True)]
    )
    repeats = {repeat.order: repeat for repeat in find_repeats(content_keys(rows))}
    sums = _plan_buckets(rows, repeats, store, config.label, count, _Partition(0, 1))
    _finish(store, config, count, seconds, [sums], identity=fingerprint([block.name for block in scanned]))


@dataclass(frozen=True, slots=True)
class _Partition:
    """Buckets whose number is `index` modulo `count`."""

    index: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What a part of the plan adds to the summary."""

    recordings: int
    duplicates: int
    unreadable: int
    absent: int
    units: int


def _plan_buckets(
    rows: pa.Table,
    repeats: dict[int, Repeat],
    store: PlanStore,
    label: LabelConfig,
    count: int,
    partition: _Partition,
) -> _Sums:
    """Plans the buckets of a partition and removes those that hold nothing any more."""
    of_row = buckets(rows, count)
    duplicates = unreadable = absent = units = 0
    held = {int(bucket) for bucket in np.unique(of_row)}
    for bucket in sorted(held):
        mine = rows.filter(pa.array(of_row == bucket))
        own_units, recordings = plan_bucket(mine, repeats, label, bucket)
        store.write(bucket, own_units, recordings)
        units += len(own_units)
        duplicates += sum(one.duplicate_of is not None for one in recordings)
        unreadable += sum(one.problem is not None for one in recordings)
        absent += sum(one.problem == "missing" for one in recordings)
    for bucket in store.buckets():
        if bucket % partition.count == partition.index and bucket not in held:
            store.remove(bucket)
    return _Sums(recordings=rows.num_rows, duplicates=duplicates, unreadable=unreadable, absent=absent, units=units)


def _bucket_count(store: PlanStore, config: AnnotateConfig, seconds: float) -> int:
    """Buckets of this OUT: as its first plan fixed them."""
    before = store.summary()
    return before.buckets if before is not None else config.write.buckets or num_buckets(seconds / 3600)


def _finish(
    store: PlanStore, config: AnnotateConfig, count: int, seconds: float, sums: Iterable[_Sums], identity: str
) -> None:
    totals = dict.fromkeys(("recordings", "duplicates", "unreadable", "absent", "units"), 0)
    for one in sums:
        for name in totals:
            totals[name] += getattr(one, name)
    identity = fingerprint([FORMAT, identity, label_fingerprint(config.label)])
    store.write_summary(PlanSummary(buckets=count, identity=identity, hours=seconds / 3600, **totals))
