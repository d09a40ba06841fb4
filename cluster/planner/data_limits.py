"""What of a plan cannot be, and the smallest change that helps.

A plan has limits (`Problem`): memory of the driver and of nodes, cores that keep GPUs busy, requests that object
storage answers, a number of days. `possible` finds the smallest change under which none is exceeded.
"""

import bisect
import math
from collections.abc import Iterator
from dataclasses import replace

from cluster.planner.data_counts import counted, device_hours, window_seconds
from cluster.planner.data_setup import BUSY, PHASES, DataPlan, DataSetup, MemoryLine, Phase, PhaseLine, Problem
from cluster.planner.rates import Rates
from voxmill.data.layout import BUCKET_HOURS, MAX_BUCKETS

SHORT = 1 / 24
"""Days: GPUs may wait in a phase that lasts no longer than this."""
LONGEST_UNIT = 7200.0
"""Seconds: what one unit may hold at most; a worker that dies loses it."""
LARGEST_NODE = 4e12
"""Bytes of memory; no change asks for more in one machine."""
CHANGES = 20
"""`possible` gives up after so many changes."""


def data_plan(setup: DataSetup, rates: Rates) -> DataPlan:
    """Counts all of it, and what of it cannot be."""
    plan = counted(setup, rates)
    return replace(plan, problems=list(_problems(plan, rates)))


def possible(plan: DataPlan, rates: Rates) -> DataPlan | None:
    """The plan after the first change of every problem; itself where it has none, None where no change helps."""
    for _ in range(CHANGES):
        changed = next((problem.changed for problem in plan.problems if problem.changed is not None), None)
        if changed is None:
            break
        plan = data_plan(changed, rates)
    return None if plan.problems else plan


def cores_for_gpus(setup: DataSetup, rates: Rates) -> int:
    """The fewest cores with which GPUs work `BUSY` of the time."""
    plan = data_plan(replace(setup, cores=2**40, days=None), rates)
    return max(_cores_for(phase, plan, rates) for phase in PHASES)


def _problems(plan: DataPlan, rates: Rates) -> Iterator[Problem]:
    setup = plan.setup
    driver, workers, bucket = plan.memory
    if driver.bytes > driver.limit:
        needed = _gigabytes(driver.bytes)
        yield Problem(
            what=f"the driver takes {needed:,} GB of {driver.limit / 1e9:g} GB",
            changes=_more_memory("--driver-memory", driver, plan, rates),
            changed=replace(setup, driver_memory=needed * 1e9) if driver.bytes <= LARGEST_NODE else None,
        )
    if bucket.bytes > bucket.limit:
        needed = _gigabytes(bucket.bytes)
        buckets = _more_buckets(plan, rates)
        full = f" (a dataset has at most {MAX_BUCKETS:,} buckets)" if plan.buckets == MAX_BUCKETS else ""
        larger = replace(setup, node_memory=needed * 1e9) if bucket.bytes <= LARGEST_NODE else None
        yield Problem(
            what=f"a task over one bucket takes {needed:,} GB of a node's {bucket.limit / 1e9:g} GB{full}",
            changes=((f"write.buckets={buckets}",) if buckets else ())
            + _more_memory("--node-memory", bucket, plan, rates),
            changed=replace(setup, buckets=buckets) if buckets else larger,
        )
    if workers.bytes > workers.limit:
        needed = _gigabytes(workers.bytes)
        fewer = math.floor(setup.node_cores * workers.limit / workers.bytes)
        ways = [(f"--node-memory {needed}", replace(setup, node_memory=needed * 1e9))]
        if fewer:
            ways.append((f"--node-cores {fewer}", replace(setup, node_cores=fewer)))
        if workers.bytes > LARGEST_NODE:
            ways.pop(0)
        yield Problem(
            what=f"{setup.node_cores} workers take {needed:,} GB of a node's {workers.limit / 1e9:g} GB",
            changes=tuple(words for words, _ in ways),
            changed=ways[0][1] if ways else None,
        )
    for line in plan.phases:
        yield from _starved(line, plan, rates)
    if setup.days is not None and setup.days < plan.days < math.inf:
        yield _too_late(plan)


def _gigabytes(size: float) -> int:
    return math.ceil(size / 1e9)


def _more_memory(option: str, line: MemoryLine, plan: DataPlan, rates: Rates) -> tuple[str, ...]:
    """More memory where a machine can have it, or several datasets where that helps."""
    larger = (f"{option} {_gigabytes(line.bytes)}",) if line.bytes <= LARGEST_NODE else ()
    datasets = _datasets(plan, rates)
    return (*larger, f"dividing the recordings over {datasets} datasets") if datasets else larger


def _more_buckets(plan: DataPlan, rates: Rates) -> int | None:
    """The fewest more buckets, by doubling, with which the largest one fits into a node; None where no number does."""
    buckets = plan.buckets
    while 2 * buckets <= MAX_BUCKETS:
        buckets *= 2
        bucket = counted(replace(plan.setup, buckets=buckets), rates).memory[2]
        if bucket.bytes <= bucket.limit:
            return buckets
    return None


def _datasets(plan: DataPlan, rates: Rates) -> int | None:
    """The fewest datasets of equal size whose driver and buckets fit; None where not even a bucket's hours do."""

    def fit(count: int) -> bool:
        memory = counted(replace(plan.setup, audio_hours=plan.setup.audio_hours / count), rates).memory
        return all(line.bytes <= line.limit for line in memory if line is not memory[1])

    most = math.ceil(plan.setup.audio_hours / BUCKET_HOURS)
    if not fit(most):
        return None
    return bisect.bisect_left(range(1, most + 1), True, key=fit) + 1


def _starved(line: PhaseLine, plan: DataPlan, rates: Rates) -> Iterator[Problem]:
    """GPUs that wait for cores or storage; a phase that has no core."""
    setup = plan.setup
    if math.isinf(line.core_days):
        cores = setup.gpus + 1
        yield Problem(
            what=f"{line.phase}: {setup.cores} cores for {setup.gpus} GPUs; each GPU's process takes one",
            changes=(f"--cores {cores}",),
            changed=replace(setup, cores=cores),
        )
        return
    if not line.gpu_days or line.days <= SHORT:
        return
    if line.core_days * BUSY > line.gpu_days:
        cores = _cores_for(line.phase, plan, rates)
        gpus = _gpus_for(line, setup)
        yield Problem(
            what=(
                f"{line.phase}: {setup.cores:,} cores keep {setup.gpus:,} GPUs busy for "
                f"{line.gpu_days / line.core_days:.0%} of the time"
            ),
            changes=(f"--cores {cores}",) + ((f"--gpus {gpus}",) if gpus else ()),
            changed=replace(setup, cores=cores),
        )
    if line.storage_days * BUSY > line.gpu_days:
        yield _storage_bound(line, plan, rates)


def _storage_bound(line: PhaseLine, plan: DataPlan, rates: Rates) -> Problem:
    """Fewer and larger files where longer units give them, and otherwise fewer GPUs."""
    setup = plan.setup
    gpus = math.floor(setup.gpus * line.gpu_days / (line.storage_days * BUSY))
    ways: list[tuple[str, DataSetup]] = []
    longer = _longer_units(line.phase, setup, rates)
    if longer is not None:
        ways.append((f"label.unit_seconds={longer:g}", replace(setup, unit_seconds=longer)))
    if gpus:
        ways.append((f"--gpus {gpus}", replace(setup, gpus=gpus)))
    return Problem(
        what=(
            f"{line.phase}: {line.puts:.3g} files written and {line.gets:.3g} ranges read take storage "
            f"{line.storage_days:,.2f} days, and the GPUs {line.gpu_days:,.2f}"
        ),
        changes=tuple(words for words, _ in ways),
        changed=ways[0][1] if ways else None,
    )


def _longer_units(phase: Phase, setup: DataSetup, rates: Rates) -> float | None:
    """The shortest units, of whole windows, whose files storage takes as fast as GPUs make them; None where none is."""
    window = math.ceil(window_seconds(setup))

    def enough(windows: int) -> bool:
        plan = counted(replace(setup, unit_seconds=float(windows * window)), rates)
        line = next(line for line in plan.phases if line.phase == phase)
        return line.storage_days * BUSY <= line.gpu_days

    counts = range(1, math.floor(LONGEST_UNIT / window) + 1)
    first = bisect.bisect_left(counts, True, key=enough)
    return float(counts[first] * window) if first < len(counts) else None


def _cores_for(phase: Phase, plan: DataPlan, rates: Rates) -> int:
    """Cores with which a phase's GPUs work `BUSY` of the time; 1 where it has no GPU."""
    line = next(line for line in plan.phases if line.phase == phase)
    if not line.gpu_days:
        return 1
    hours = device_hours(plan, phase, "core")
    return plan.setup.gpus + max(math.ceil(hours * BUSY / (24 * line.gpu_days * rates["efficiency.cores"])), 1)


def _gpus_for(line: PhaseLine, setup: DataSetup) -> int:
    """The most GPUs that these cores keep busy, of which each takes one core for itself."""
    # gpu_days * gpus / g >= BUSY * core_days * (cores - gpus) / (cores - g)
    work = line.gpu_days * setup.gpus
    core_work = BUSY * line.core_days * (setup.cores - setup.gpus)
    return min(math.floor(work * setup.cores / (core_work + work)), setup.gpus - 1)


def _too_late(plan: DataPlan) -> Problem:
    """More machines of the same kind: cores and GPUs in the ratio that they have."""
    setup = plan.setup
    assert setup.days is not None
    storage = sum(line.days for line in plan.phases if line.bound_by == "storage")
    what = f"{plan.days:,.1f} days, and {setup.days:g} were asked for"
    if storage >= setup.days:
        return Problem(what=f"{what}; storage alone takes {storage:,.1f}", changes=(), changed=None)
    factor = (plan.days - storage) / (setup.days - storage)
    gpus = math.ceil(setup.gpus * factor)
    cores = gpus + math.ceil((setup.cores - setup.gpus) * factor)
    words = f"--gpus {gpus} --cores {cores}" if gpus else f"--cores {cores}"
    return Problem(what=what, changes=(words,), changed=replace(setup, gpus=gpus, cores=cores))
