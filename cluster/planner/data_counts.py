"""What a dataset of so many hours takes: GPU-hours and core-hours by stage, bytes and files, memory."""

import math
from collections.abc import Iterator
from dataclasses import replace

from cluster.planner.data_setup import (
    PHASES,
    STAGES,
    DataPlan,
    DataSetup,
    Device,
    MemoryLine,
    Phase,
    PhaseLine,
    StageLine,
    StorageLine,
)
from cluster.planner.rates import Rates, Source
from voxmill.core.audio import RATE_16K
from voxmill.data.layout import num_buckets

INDEXES = ("clips", "rejected", "recordings")


def counted(setup: DataSetup, rates: Rates) -> DataPlan:
    """A plan without its problems."""
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
        gpu = device_hours(plan, phase, "GPU") / 24
        core = device_hours(plan, phase, "core") / 24
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


def device_hours(plan: DataPlan, phase: Phase, device: Device) -> float:
    """Core-hours or GPU-hours of a phase."""
    return sum(line.device_hours for line in plan.stages if line.phase == phase and line.device == device)


def _free_cores(setup: DataSetup, phase: Phase, gpu: float) -> int:
    """Cores that are not taken by the process that feeds a GPU."""
    return setup.cores - (setup.gpus if gpu else 0)


def _requests(plan: DataPlan, phase: Phase) -> tuple[float, float]:
    """(files written, ranges read) of object storage."""
    files = {line.name: line.files for line in plan.storage}
    windows = plan.setup.audio_hours * 3600 / window_seconds(plan.setup)
    if phase == "scan":
        return files["scans"], files["recordings"]
    if phase == "annotate":
        return files["units"] + files["labels"], windows
    if phase == "finish":
        # Labels of every unit, then its kept clips as one range.
        return files["shards"] + files["index"], files["labels"] + 2 * files["units"]
    return (files["latents"], files["shards"]) if "encode" in plan.setup.stages else (0.0, 0.0)


# ---- what lies where


def window_seconds(setup: DataSetup) -> float:
    """Mean length of a window: a long recording is cut into equal ones."""
    return setup.recording_seconds / math.ceil(setup.recording_seconds / setup.window_seconds)


def _unit_seconds(setup: DataSetup) -> float:
    """Mean length of a unit: as many windows as fit, fewer where a recording ends it."""
    window = window_seconds(setup)
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
