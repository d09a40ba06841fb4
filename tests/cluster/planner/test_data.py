"""The plan of a dataset: its sums, its limits, and that the change it offers is the smallest that helps."""

import math
import random
from dataclasses import replace

import pytest

from cluster.planner.data_counts import largest_bucket_hours
from cluster.planner.data_limits import cores_for_gpus, data_plan, possible
from cluster.planner.data_setup import BUSY, STAGES, DataPlan, DataSetup
from cluster.planner.rate_files import GPU_STAGES, read_rates
from cluster.planner.rates import Known, Rates, Source
from pipelines.units.unit import UNITS_A_CUT, group
from voxmill.data.layout import MAX_BUCKETS
from voxmill.data.records import SourceInfo, Window

PACKAGE = read_rates()
WITHOUT_MODEL = ("emotion", "age")
BASE = DataSetup(
    audio_hours=100_000.0,
    gpus=8,
    cores=200,
    sample_rate=16000.0,
    recording_seconds=600.0,
    session_seconds=600.0,
    recording_bytes_hour=None,
    stages=tuple(stage for stage in STAGES if stage not in WITHOUT_MODEL),
    gpu_stages=GPU_STAGES,
    labellers=5,
    scan_rows=400.0,
    units_a_cut=UNITS_A_CUT,
    latents_end_one_in=256,
    unit_seconds=60.0,
    window_seconds=300.0,
    buckets=None,
    shard_bytes=256e6,
    latent_unit_seconds=3600.0,
    latent_bytes_second=3200.0,
    node_cores=32,
    node_memory=128e9,
    driver_memory=1e15,
    puts_per_second=3500.0,
    gets_per_second=5500.0,
)


def rates(**changed: float) -> Rates:
    """The package's, some of them replaced; `__` stands for the dot."""
    new = {name.replace("__", "."): Known(value=value, source=Source()) for name, value in changed.items()}
    return Rates(PACKAGE.known | new)


def fits(setup: DataSetup, known: Rates = PACKAGE) -> bool:
    return not data_plan(setup, known).problems


def bytes_of(plan: DataPlan, name: str) -> float:
    return next(line.bytes for line in plan.storage if line.name == name)


def test_hours_are_audio_times_rate_on_the_device_that_has_it() -> None:
    plan = data_plan(BASE, rates(gpu__transcription=36.0, cpu__quality=252.0, corpus__separated=0.25))
    lines = {line.stage: line for line in plan.stages}
    assert (lines["transcription"].device, lines["transcription"].device_hours) == ("GPU", 1000.0)
    assert (lines["quality"].device, lines["quality"].device_hours) == ("core", 7000.0)
    assert lines["separation"].audio_hours == 25_000.0
    assert lines["encode"].audio_hours == plan.kept_hours
    assert plan.gpu_hours + plan.core_hours == pytest.approx(sum(line.device_hours for line in plan.stages))


def test_without_gpus_all_of_it_is_on_cores() -> None:
    plan = data_plan(replace(BASE, gpus=0), PACKAGE)
    assert not plan.gpu_hours and {line.device for line in plan.stages} == {"core"}
    assert "load" not in {line.stage for line in plan.stages}
    assert all(line.bound_by != "GPUs" and line.gpu_busy is None for line in plan.phases)


def test_days_are_those_of_the_slowest_device_of_each_phase() -> None:
    plan = data_plan(BASE, rates(efficiency__gpus=1.0, efficiency__cores=1.0))
    annotate = next(line for line in plan.phases if line.phase == "annotate")
    gpu = sum(line.device_hours for line in plan.stages if line.phase == "annotate" and line.device == "GPU")
    core = sum(line.device_hours for line in plan.stages if line.phase == "annotate" and line.device == "core")
    assert annotate.gpu_days == pytest.approx(gpu / 8 / 24)
    assert annotate.core_days == pytest.approx(core / (200 - 8) / 24)  # a core a GPU feeds it
    assert annotate.days == max(annotate.gpu_days, annotate.core_days)
    assert plan.days == sum(line.days for line in plan.phases)


def test_storage_follows_the_audio() -> None:
    half = data_plan(replace(BASE, sample_rate=8000.0), PACKAGE)
    plan, wide = data_plan(BASE, PACKAGE), data_plan(replace(BASE, sample_rate=48000.0), PACKAGE)
    flac_hour = PACKAGE["sizes.flac_sample"] * 16000 * 3600
    assert bytes_of(plan, "recordings") == pytest.approx(100_000 * flac_hour)
    assert bytes_of(plan, "shards") - bytes_of(half, "shards") == pytest.approx(plan.kept_hours * flac_hour / 2)
    assert bytes_of(wide, "recordings") == pytest.approx(1e5 * PACKAGE["sizes.flac_sample_wide"] * 48000 * 3600)
    assert bytes_of(wide, "latents") == bytes_of(plan, "latents")
    assert bytes_of(plan, "latents") > plan.kept_hours * 3600 * 25 * 64 * 2
    compressed = data_plan(replace(BASE, recording_bytes_hour=128 * 125 * 3600.0), PACKAGE)
    assert bytes_of(compressed, "recordings") == pytest.approx(100_000 * 57.6e6)
    assert bytes_of(compressed, "shards") == bytes_of(plan, "shards")


@pytest.mark.parametrize("unit", [60.0, 600.0, 1800.0])
@pytest.mark.parametrize("recording", [20.0, 47.0, 300.0, 1000.0, 7000.0])
def test_units_are_as_long_as_annotate_makes_them(recording: float, unit: float) -> None:
    """By `group` itself, over recordings whose names are random."""
    windows = []
    count = math.ceil(recording / BASE.window_seconds)
    for number in range(400):
        recording_id = f"{random.Random(number).getrandbits(128):032x}"
        for part in range(count):
            window = Window(
                recording_id=recording_id,
                name="",
                path="",
                start_sample=round(part * recording / count * 100),
                end_sample=round((part + 1) * recording / count * 100),
                sample_rate=100,
                digests=(),
                source=SourceInfo(session=""),
            )
            windows.append(window)
    units = group(windows, unit, "")
    plan = data_plan(replace(BASE, recording_seconds=recording, unit_seconds=unit), PACKAGE)
    mean = sum(one.seconds for one in units) / len(units)
    assert plan.setup.audio_hours * 3600 / plan.units == pytest.approx(mean, rel=0.1)


def test_enough_cores_are_the_fewest_that_keep_the_gpus_busy() -> None:
    for known in (PACKAGE, rates(gpu__transcription=200.0), rates(cpu__load=1000.0)):
        cores = cores_for_gpus(BASE, known)
        assert fits(replace(BASE, cores=cores), known)
        assert not fits(replace(BASE, cores=cores - 1), known)


@pytest.mark.parametrize(
    ("setup", "words", "offered"),
    [
        (replace(BASE, cores=50), "annotate: 50 cores keep 8 GPUs busy for", "--cores "),
        (replace(BASE, cores=5), "annotate: 5 cores for 8 GPUs", "--cores 9"),
        (replace(BASE, driver_memory=1e6), "the driver takes", "--driver-memory "),
        (replace(BASE, node_memory=40e9), "32 workers take", "--node-memory "),
        (replace(BASE, session_seconds=36e5, node_memory=70e9), "a task over one bucket takes", "--node-memory "),
        (replace(BASE, buckets=16), "a task over one bucket takes", "write.buckets="),
        (replace(BASE, puts_per_second=10.0), "annotate: ", "label.unit_seconds="),
        (replace(BASE, days=2.0), "days, and 2 were asked for", "--gpus "),
        (replace(BASE, gpus=0, days=2.0), "days, and 2 were asked for", "--cores "),
    ],
)
def test_what_cannot_be_is_refused_with_a_change_that_helps(setup: DataSetup, words: str, offered: str) -> None:
    known = rates(memory__driver_clip=1.0, memory__driver_unit=1.0, memory__task_clip=1e5)
    plan = data_plan(setup, known)
    problem = next(problem for problem in plan.problems if words in problem.what)
    assert problem.changes[0].startswith(offered)
    changed = possible(plan, known)
    assert changed is not None and fits(changed.setup, known)


def test_each_way_out_helps_and_one_step_less_does_not() -> None:
    starved = replace(BASE, cores=50)
    (problem,) = data_plan(starved, PACKAGE).problems
    cores, gpus = (int(way.split()[1]) for way in problem.changes)
    assert fits(replace(starved, cores=cores)) and not fits(replace(starved, cores=cores - 1))
    assert fits(replace(starved, gpus=gpus)) and not fits(replace(starved, gpus=gpus + 1))

    few = replace(BASE, buckets=16)
    (problem,) = data_plan(few, rates(memory__task_clip=1e5)).problems
    buckets = int(problem.changes[0].partition("=")[2])
    assert fits(replace(few, buckets=buckets), rates(memory__task_clip=1e5))
    assert not fits(replace(few, buckets=buckets // 2), rates(memory__task_clip=1e5))

    small = replace(BASE, node_memory=40e9)
    (problem,) = data_plan(small, PACKAGE).problems
    memory, cores = (int(way.split()[1]) for way in problem.changes)
    assert fits(replace(small, node_memory=memory * 1e9)) and not fits(replace(small, node_memory=(memory - 1) * 1e9))
    assert fits(replace(small, node_cores=cores)) and not fits(replace(small, node_cores=cores + 1))


def test_a_plan_that_no_machine_holds_says_so() -> None:
    known = rates(memory__task_clip=1e6)
    plan = data_plan(replace(BASE, audio_hours=1e9), known)
    assert plan.buckets == MAX_BUCKETS
    problem = next(problem for problem in plan.problems if "65,536 buckets" in problem.what)
    assert problem.changed is None and possible(plan, known) is None
    count = int(problem.changes[0].split()[-2])
    assert count > 1 and fits(replace(BASE, audio_hours=1e9 / count), known)
    assert not fits(replace(BASE, audio_hours=1e9 / (count - 1)), known)


def test_gpus_that_wait_for_storage_get_longer_units_or_are_fewer() -> None:
    slow = replace(BASE, puts_per_second=10.0)
    plan = data_plan(slow, PACKAGE)
    changed = possible(plan, PACKAGE)
    assert changed is not None and changed.setup.unit_seconds > 60
    assert all(line.gpu_busy is None or line.gpu_busy >= BUSY for line in changed.phases)
    assert possible(data_plan(replace(BASE, puts_per_second=1e-6), PACKAGE), PACKAGE) is None


def test_a_short_run_is_not_refused_for_gpus_that_wait() -> None:
    short = replace(BASE, audio_hours=100.0, cores=9)
    plan = data_plan(short, PACKAGE)
    assert plan.phases[1].gpu_busy is not None and plan.phases[1].gpu_busy < BUSY
    assert plan.phases[1].days > 1 / 24 and plan.problems
    assert fits(replace(short, audio_hours=0.2))


def test_days_of_a_phase_without_a_core_are_no_number_of_days() -> None:
    plan = data_plan(replace(BASE, cores=8, days=100.0), PACKAGE)
    assert math.isinf(plan.days) and all("were asked for" not in problem.what for problem in plan.problems)
    assert possible(plan, PACKAGE) is not None


def test_the_largest_bucket_holds_what_hashing_gives() -> None:
    """Ten thousand sessions in 1024 buckets, by the hash that the dataset uses."""
    from collections import Counter

    from voxmill.data.layout import bucket_of

    hours = 1024 * 16.0
    plan = data_plan(replace(BASE, audio_hours=hours, session_seconds=6 * 3600), PACKAGE)
    assert plan.buckets == 1024
    counts = Counter(bucket_of(f"session-{number}", 1024) for number in range(round(hours / 6)))
    assert 1.0 <= largest_bucket_hours(plan) / (6 * max(counts.values())) <= 1.5


def test_any_size_of_corpus_gives_finite_numbers() -> None:
    for hours in (0.001, 1.0, 16.0, 17.0, 1e6, 1e9):
        plan = data_plan(replace(BASE, audio_hours=hours), PACKAGE)
        assert all(math.isfinite(line.bytes) and line.files >= 0 for line in plan.storage)
        assert math.isfinite(plan.days) and plan.days > 0
