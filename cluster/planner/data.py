"""What a dataset of so many hours takes: GPU-hours and core-hours by stage, bytes and files, memory, days.

A plan has limits (`Problem`): memory of the driver and of nodes, cores that keep GPUs busy, requests that object
storage answers, a number of days. `possible` finds the smallest change under which none is exceeded.
"""

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from cluster.planner.rates import Rates, Source
from voxmill.core.audio import RATE_16K
from voxmill.data.layout import BUCKET_HOURS, MAX_BUCKETS, num_buckets

Device = Literal["GPU", "core"]
Phase = Literal["scan", "annotate", "finish", "encode"]
PHASES: tuple[Phase, ...] = ("scan", "annotate", "finish", "encode")
STAGES: dict[str, Phase] = {
    "scan": "scan",
    **dict.fromkeys(
        ("decode", "events", "separation", "segmentation", "transcription", "quality", "write"), "annotate"
    ),
    **dict.fromkeys(("prosody", "speaker", "gender", "emotion", "age"), "annotate"),
    "index": "finish",
    "shards": "finish",
    "load": "encode",
    "encode": "encode",
}
BUSY = 0.9
"""The share of the time that GPUs must work; with less they wait for cores or storage, and the plan is refused."""
SHORT = 1 / 24
"""Days: GPUs may wait in a phase that lasts no longer than this."""
LONGEST_UNIT = 7200.0
"""Seconds: what one unit may hold at most; a worker that dies loses it."""
LARGEST_NODE = 4e12
"""Bytes of memory; no change asks for more in one machine."""
CHANGES = 20
"""`possible` gives up after so many changes."""
INDEXES = ("clips", "rejected", "recordings")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetup:
    """A corpus, the machines, and how the dataset is divided. Memory is in bytes."""

    audio_hours: float
    gpus: int
    cores: int
    sample_rate: float
    recording_seconds: float
    session_seconds: float
    recording_bytes_hour: float | None
    """Of the recordings as they are; None: mono FLAC."""
    stages: tuple[str, ...]
    """Names from `STAGES`."""
    gpu_stages: tuple[str, ...]
    """Those of them that a GPU computes where there is one."""
    labellers: int
    """Labellers of voices: each has a file a unit, also one without a model."""
    scan_rows: float
    """Recordings in a file of `work/scans`, on average."""
    unit_seconds: float
    window_seconds: float
    units_a_cut: int
    """Units that are full before a recording ends one, on average."""
    latents_end_one_in: int
    """One clip in so many ends its latent shard."""
    buckets: int | None
    """None: by the hours."""
    shard_bytes: float
    latent_unit_seconds: float
    latent_bytes_second: float
    node_cores: int
    node_memory: float
    driver_memory: float
    puts_per_second: float
    gets_per_second: float
    days: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """A stage: `seconds` of its device for an hour of the audio that it works on, of which there are `audio_hours`."""

    stage: str
    phase: Phase
    device: Device
    audio_hours: float
    seconds: float
    source: Source

    @property
    def device_hours(self) -> float:
        """Core-hours or GPU-hours."""
        return self.audio_hours * self.seconds / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLine:
    """What lies in one place."""

    name: str
    bytes: float
    files: float
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLine:
    """Memory of one process or node."""

    name: str
    bytes: float
    limit: float
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLine:
    """One of the jobs' phases, one after another. Days on GPUs, cores and storage alone; the longest one counts."""

    phase: Phase
    gpu_days: float
    core_days: float
    storage_days: float
    puts: float
    gets: float

    @property
    def days(self) -> float:
        return max(self.gpu_days, self.core_days, self.storage_days)

    @property
    def bound_by(self) -> Literal["GPUs", "cores", "storage"]:
        if self.gpu_days >= BUSY * self.days and self.gpu_days:
            return "GPUs"
        return "cores" if self.core_days >= self.storage_days else "storage"

    @property
    def gpu_busy(self) -> float | None:
        """The share of the time in which GPUs work; None without GPUs."""
        return self.gpu_days / self.days if self.gpu_days else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What cannot be, and the smallest changes that help, as a user writes them; `changed` has the first of them."""

    what: str
    changes: tuple[str, ...]
    changed: DataSetup | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlan:
    """A setup and what it takes."""

    setup: DataSetup
    kept_hours: float
    clips: float
    candidates: float
    recordings: float
    units: float
    buckets: int
    bucket_hours: float
    stages: list[StageLine]
    phases: list[PhaseLine]
    storage: list[StorageLine]
    memory: list[MemoryLine]
    problems: list[Problem] = field(default_factory=list)

    @property
    def gpu_hours(self) -> float:
        return sum(line.device_hours for line in self.stages if line.device == "GPU")

    @property
    def core_hours(self) -> float:
        return sum(line.device_hours for line in self.stages if line.device == "core")

    @property
    def days(self) -> float:
        return sum(line.days for line in self.phases)


def data_plan(setup: DataSetup, rates: Rates) -> DataPlan:
    """Counts all of it, and what of it cannot be."""
    plan = _counted(setup, rates)
    return replace(plan, problems=list(_problems(plan, rates)))


def _counted(setup: DataSetup, rates: Rates) -> DataPlan:
    kept = setup.audio_hours * rates["corpus.kept"]
    candidate_hours = setup.audio_hours * rates["corpus.candidates"]
    clip_hours = rates["corpus.clip_seconds"] / 3600
    buckets = setup.buckets or num_buckets(setup.audio_hours)
    plan = DataPlan(
        setup=setup,
        kept_hours=kept,
        clips=kept / clip_hours,
        candidates=candidate_hours / clip_hours,
        recordings=setup.audio_hours * 3600 / setup.recording_seconds,
        units=setup.audio_hours * 3600 / _unit_seconds(setup),
        buckets=buckets,
        bucket_hours=setup.audio_hours / buckets,
        stages=list(_stages(setup, rates, kept)),
        phases=[],
        storage=[],
        memory=[],
    )
    plan = replace(plan, storage=list(_storage(plan, rates, candidate_hours)))
    return replace(plan, phases=list(_phases(plan, rates)), memory=list(_memory(plan, rates)))


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


# ---- work


def _stages(setup: DataSetup, rates: Rates, kept: float) -> Iterator[StageLine]:
    for stage, phase in STAGES.items():
        if stage not in setup.stages or (stage == "load" and not setup.gpus):
            continue
        device: Device = "GPU" if setup.gpus and stage in setup.gpu_stages else "core"
        name = f"{'gpu' if device == 'GPU' else 'cpu'}.{stage}"
        hours = kept if phase in ("finish", "encode") else setup.audio_hours
        clips_hour = 3600 / rates["corpus.clip_seconds"] if stage == "index" else 1.0
        yield StageLine(
            stage=stage,
            phase=phase,
            device=device,
            audio_hours=hours * (rates["corpus.separated"] if stage == "separation" else 1.0),
            seconds=rates[name] * clips_hour,
            source=rates.source(name),
        )


def _phases(plan: DataPlan, rates: Rates) -> Iterator[PhaseLine]:
    setup = plan.setup
    for phase in PHASES:
        gpu = _device_hours(plan, phase, "GPU") / 24
        core = _device_hours(plan, phase, "core") / 24
        puts, gets = _requests(plan, phase)
        free = _free_cores(setup, phase, gpu)
        yield PhaseLine(
            phase=phase,
            gpu_days=gpu / (setup.gpus * rates["efficiency.gpus"]) if gpu else 0.0,
            core_days=core / (free * rates["efficiency.cores"]) if free > 0 else math.inf if core else 0.0,
            storage_days=max(puts / setup.puts_per_second, gets / setup.gets_per_second) / 86400,
            puts=puts,
            gets=gets,
        )


def _device_hours(plan: DataPlan, phase: Phase, device: Device) -> float:
    return sum(line.device_hours for line in plan.stages if line.phase == phase and line.device == device)


def _free_cores(setup: DataSetup, phase: Phase, gpu: float) -> int:
    """Cores that are not taken by the process that feeds a GPU."""
    return setup.cores - (setup.gpus if gpu else 0)


def _requests(plan: DataPlan, phase: Phase) -> tuple[float, float]:
    """(files written, ranges read) of object storage."""
    files = {line.name: line.files for line in plan.storage}
    windows = plan.setup.audio_hours * 3600 / _window_seconds(plan.setup)
    if phase == "scan":
        return files["scans"], files["recordings"]
    if phase == "annotate":
        return files["units"] + files["labels"], windows
    if phase == "finish":
        # Labels of every unit, then its kept clips as one range.
        return files["shards"] + files["index"], files["labels"] + 2 * files["units"]
    return (files["latents"], files["shards"]) if "encode" in plan.setup.stages else (0.0, 0.0)


# ---- what lies where


def _window_seconds(setup: DataSetup) -> float:
    """Mean length of a window: a long recording is cut into equal ones."""
    return setup.recording_seconds / math.ceil(setup.recording_seconds / setup.window_seconds)


def _unit_seconds(setup: DataSetup) -> float:
    """Mean length of a unit: as many windows as fit, fewer where a recording ends it."""
    window = _window_seconds(setup)
    windows = max(math.floor(setup.unit_seconds / window), 1)
    # Cuts come at random, one in `cut` seconds, and at the end of a recording: long ones are divided by themselves.
    cut = float(setup.units_a_cut * setup.unit_seconds)
    joined = max(cut * (1 - math.exp(-windows * window / cut)), window)
    parts = math.ceil(round(setup.recording_seconds / window) / windows)
    ends = min(setup.recording_seconds / cut, 1.0) if parts > 1 else 0.0
    return ends * setup.recording_seconds / parts + (1 - ends) * joined


def mean_group(most: float, ends_one_in: float) -> float:
    """Mean size of groups of at most `most`, of which one member in so many ends its group."""
    ends = -math.expm1(most * math.log1p(-1 / ends_one_in))
    return ends_one_in * ends


def _storage(plan: DataPlan, rates: Rates, candidate_hours: float) -> Iterator[StorageLine]:
    setup = plan.setup
    sample = "sizes.flac_sample" if setup.sample_rate <= RATE_16K else "sizes.flac_sample_wide"
    flac_hour, flac = rates[sample] * setup.sample_rate * 3600, rates.source(sample)

    def line(name: str, content: float, files: float, source: Source) -> StorageLine:
        return StorageLine(name=name, bytes=content, files=files, source=source)

    hour = flac_hour if setup.recording_bytes_hour is None else setup.recording_bytes_hour
    given = flac if setup.recording_bytes_hour is None else Source(kind="given")
    yield line("recordings", setup.audio_hours * hour, plan.recordings, given)
    yield line(
        "scans",
        plan.recordings * rates["sizes.scan_recording"],
        plan.recordings / setup.scan_rows + 2 * plan.buckets,
        rates.source("sizes.scan_recording"),
    )
    yield line("units", candidate_hours * flac_hour + plan.candidates * rates["sizes.unit_clip"], plan.units, flac)
    yield line(
        "labels",
        plan.candidates * rates["sizes.labels_clip"],
        plan.units * setup.labellers,
        rates.source("sizes.labels_clip"),
    )
    shards = plan.kept_hours * flac_hour + plan.clips * rates["sizes.shard_clip"]
    yield line("shards", shards, plan.buckets * max(math.ceil(shards / plan.buckets / setup.shard_bytes), 1), flac)
    rows = {"clips": plan.clips, "rejected": max(plan.candidates - plan.clips, 0), "recordings": plan.recordings}
    index = sum(rows[name] * rates[f"sizes.{name}_row"] for name in INDEXES)
    parts = plan.buckets * len(INDEXES)
    yield line("index", index + parts * rates["sizes.part"], parts, rates.source("sizes.clips_row"))
    if "encode" in setup.stages:
        latents = plan.kept_hours * 3600 * setup.latent_bytes_second
        beside = plan.clips * (rates["sizes.latent_clip"] + rates["sizes.latents_row"])
        clips = max(setup.latent_unit_seconds / rates["corpus.clip_seconds"], 1)
        tars = max(plan.clips / mean_group(clips, setup.latents_end_one_in), plan.buckets)
        content = latents + beside + plan.buckets * rates["sizes.part"]
        yield line("latents", content, tars + plan.buckets, rates.source("sizes.latent_clip"))


# ---- memory


def _memory(plan: DataPlan, rates: Rates) -> Iterator[MemoryLine]:
    setup = plan.setup
    driver = rates["memory.driver"] + plan.candidates * rates["memory.driver_clip"]
    driver += plan.units * rates["memory.driver_unit"] + plan.buckets * rates["memory.driver_bucket"]
    yield MemoryLine(name="driver", bytes=driver, limit=setup.driver_memory, source=rates.source("memory.driver_clip"))
    samples = setup.sample_rate / 48000
    worker = rates["memory.worker"] + setup.window_seconds * samples * rates["memory.worker_second"]
    worker += setup.unit_seconds * samples * rates["memory.worker_unit_second"]
    yield MemoryLine(
        name=f"node: {setup.node_cores} workers of {worker / 1e9:.1f} GB",
        bytes=setup.node_cores * worker,
        limit=setup.node_memory,
        source=rates.source("memory.worker"),
    )
    clips = plan.candidates / setup.audio_hours * largest_bucket_hours(plan)
    yield MemoryLine(
        name=f"node: a task over the largest bucket, {largest_bucket_hours(plan):,.0f} h",
        bytes=rates["memory.task"] + clips * rates["memory.task_clip"],
        limit=setup.node_memory,
        source=rates.source("memory.task_clip"),
    )


def largest_bucket_hours(plan: DataPlan) -> float:
    """Hours of the largest bucket: sessions fall into buckets by their hash, whole."""
    session = min(plan.setup.session_seconds / 3600, plan.setup.audio_hours)
    mean = plan.bucket_hours / session
    if plan.buckets == 1:
        return plan.setup.audio_hours
    # The count of sessions is nearly normal around its mean; the largest of B of them is so many deviations above.
    deviations = math.sqrt(2 * math.log(plan.buckets))
    return session * (mean + deviations * math.sqrt(mean) + deviations**2 / 6)


# ---- what cannot be


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
        bucket = _counted(replace(plan.setup, buckets=buckets), rates).memory[2]
        if bucket.bytes <= bucket.limit:
            return buckets
    return None


def _datasets(plan: DataPlan, rates: Rates) -> int | None:
    """The fewest datasets of equal size whose driver and buckets fit; None where not even a bucket's hours do."""

    def fit(count: int) -> bool:
        memory = _counted(replace(plan.setup, audio_hours=plan.setup.audio_hours / count), rates).memory
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
    window = math.ceil(_window_seconds(setup))

    def enough(windows: int) -> bool:
        plan = _counted(replace(setup, unit_seconds=float(windows * window)), rates)
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
    hours = _device_hours(plan, phase, "core")
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
