"""Figures and their sources: the package's own, files of the user, and a run that really ran."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from cluster.planner.data_limits import data_plan
from cluster.planner.data_setup import STAGES, DataPlan
from cluster.planner.rate_files import GPU_STAGES, SECTIONS, rates_of_run, read_rates
from cluster.planner.rates import RatesFile
from samples.annotate_process import run_job
from tests.cluster.planner.test_data import BASE
from tests.support.s3_server import BUCKET, s3_server
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.local_ray import local_ray
from voxmill.core.storage import to_path

SAMPLES = Path(__file__).resolve().parents[3] / "samples"


def test_the_package_has_every_figure_with_a_source() -> None:
    rates = read_rates()
    file = RatesFile()
    names = {f"{section}.{name}" for section in SECTIONS for name in type(getattr(file, section)).model_fields}
    without = {f"gpu.{stage}" for stage in STAGES if stage not in GPU_STAGES}
    assert set(rates.known) == names - without
    for name in rates.known:
        source = rates.source(name)
        assert source.kind in ("measured", "assumed") and source.command, name
        assert source.kind == "assumed" or (source.where and source.date), name


def test_the_users_figures_stand_over_the_packages_and_say_so(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("gpu: {transcription: 5, speaker: 3}\n")
    second.write_text(
        "sources: {trial: {kind: measured, where: one L4, date: '2026-12-01', command: by hand}}\n"
        "gpu: {transcription: {value: 7, source: trial}}\n"
    )
    rates = read_rates([first, second])
    assert (rates["gpu.transcription"], rates["gpu.speaker"]) == (7.0, 3.0)
    assert str(rates.source("gpu.transcription")) == "measured, one L4, 2026-12-01"
    assert str(rates.source("gpu.speaker")) == f"given, {first}"
    assert rates["cpu.quality"] == read_rates()["cpu.quality"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu: {transcribing: 5}", "unknown key 'gpu.transcribing'"),
        ("gpu: {transcription: fast}", "gpu.transcription"),
        ("gpu: {transcription: -1}", "greater than or equal to 0"),
        ("gpu: {transcription: .nan}", "finite number"),
        ("gpu: {transcription: .inf}", "finite number"),
        ("gpu: {transcription: true}", "gpu.transcription"),
        ("gpu: {transcription: {value: 5, source: nobody}}", "gpu.transcription: no source 'nobody' in sources"),
        ("corpus: {kept: 2}", "corpus.kept = 2"),
        ("corpus: {clip_seconds: 0}", "corpus.clip_seconds = 0"),
        ("efficiency: {gpus: 0}", "efficiency.gpus = 0"),
        ("[1, 2]", "must hold `key: value` lines"),
    ],
)
def test_a_wrong_file_of_rates_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_rates([path])
    assert str(path) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


# ---- run.json

RUN: dict[str, object] = {
    "hours_in": 10.0,
    "hours_kept": 8.0,
    "recordings": 20,
    "units": 120,
    "kept": 4000,
    "rejected": 1000,
    "stages": [
        {"name": "transcription", "seconds": 200.0, "audio_seconds": 36000.0, "calls": 5},
        {"name": "quality", "seconds": 2540.0, "audio_seconds": 36000.0, "calls": 5},
        {"name": "separation", "seconds": 100.0, "audio_seconds": 36000.0, "calls": 5},
        {"name": "a stage of another version", "seconds": 1.0, "audio_seconds": 1.0, "calls": 1},
    ],
    "separation": {"seconds_spent": 100.0, "seconds_saved": 300.0},
    "finished": "2026-11-27T01:02:03+00:00",
    "config": {"run": {"threads": 2}},
}


def write_run(folder: Path, **changes: object) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps({name: value for name, value in (RUN | changes).items() if value is not None}))
    return path


def test_a_run_on_cpus_gives_core_seconds(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    rates = read_rates([path])
    assert rates["cpu.transcription"] == 40.0  # 200 s on two threads, 10 h
    assert rates["cpu.separation"] == 80.0 and rates["corpus.separated"] == 0.25
    assert (rates["corpus.kept"], rates["corpus.candidates"]) == (0.8, 1.0)
    assert (rates["corpus.clip_seconds"], rates["corpus.recording_seconds"]) == (7.2, 1800.0)
    assert str(rates.source("cpu.quality")) == f"measured, {path}, 2026-11-27"
    # What the run does not tell stays the package's, with its own source.
    for name in ("cpu.prosody", "gpu.transcription", "sizes.flac_sample"):
        assert rates.known[name] == read_rates().known[name]


def test_a_run_on_gpus_gives_gpu_seconds_of_the_stages_that_had_one(tmp_path: Path) -> None:
    stages = [
        {"name": "transcription", "seconds": 200.0, "gpu_seconds": 200.0},
        {"name": "speaker", "seconds": 100.0, "gpu_seconds": 50.0},
        {"name": "quality", "seconds": 2540.0, "gpu_seconds": 0.0},
    ]
    rates = read_rates([write_run(tmp_path, stages=stages)])
    assert rates["gpu.transcription"] == 20.0 and rates["cpu.quality"] == 508.0
    # Half of the speakers were labelled without a GPU: that tells neither rate.
    for name in ("cpu.transcription", "cpu.speaker", "gpu.speaker"):
        assert rates.known[name] == read_rates().known[name]


def test_separation_that_never_ran_has_no_rate(tmp_path: Path) -> None:
    rates = read_rates([write_run(tmp_path, separation={"seconds_spent": 0.0, "seconds_saved": None})])
    assert rates["corpus.separated"] == 0.0 and rates["cpu.separation"] == read_rates()["cpu.separation"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": None}, "stages: Field required"),
        ({"stages": []}, "stages: "),
        ({"stages": [{"name": "quality"}]}, "stages.0.seconds"),
        ({"stages": [{"name": "quality", "seconds": -5}]}, "stages.0.seconds"),
        ({"hours_in": 0.0}, "hours_in"),
        ({"hours_in": float("nan")}, "hours_in"),
        ({"hours_in": "ten"}, "hours_in"),
        ({"kept": -1}, "kept"),
        ({"recordings": 0}, "recordings"),
    ],
)
def test_a_run_that_tells_no_rates_is_one_line(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_rates([write_run(tmp_path, **changes)])
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[1]", b"\xff\xfe", b'{"hours_in": 1}'])
def test_what_is_no_run_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match="run.json: not "):
        read_rates([tmp_path / "run.json"])


def test_a_run_that_kept_nothing_still_gives_the_rates_of_its_stages(tmp_path: Path) -> None:
    rates = read_rates([write_run(tmp_path, kept=0, hours_kept=0.0)])
    assert rates["cpu.quality"] == 508.0 and rates["corpus.kept"] == 0.0
    assert data_plan(BASE, rates).clips == 0


# ---- a real run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sample recordings, annotated."""
    folder = tmp_path_factory.mktemp("planned")
    manifest = folder / "manifest.jsonl"
    lines = [json.dumps({"path": str(SAMPLES / "recordings" / f"{name}.flac")}) for name in ("it-1", "ru-1")]
    manifest.write_text("\n".join(lines))
    with local_ray() as address:
        run_job(manifest, folder / "out", address, "run.workers=1", "run.progress=false")
    return folder / "out"


def plan_of(out: Path, *files: Path) -> DataPlan:
    """The plan of the very recordings that were annotated."""
    run = json.loads((out / "run.json").read_text())
    rates = read_rates(files)
    stages = tuple(stage for stage in STAGES if stage not in ("emotion", "age", "encode"))
    seconds = run["hours_in"] * 3600 / run["recordings"]
    setup = replace(
        BASE,
        audio_hours=run["hours_in"],
        gpus=0,
        cores=1,
        stages=stages,
        recording_seconds=seconds,
        session_seconds=seconds,
    )
    return data_plan(setup, rates)


def folder_bytes(folder: Path) -> int:
    return sum(os.path.getsize(Path(parent) / name) for parent, _, names in os.walk(folder) for name in names)


@pytest.mark.slow
def test_rates_of_a_run_plan_that_run(out: Path) -> None:
    run = json.loads((out / "run.json").read_text())
    plan = plan_of(out, out / "run.json")
    lines = {line.stage: line for line in plan.stages}
    for stage in run["stages"]:
        if stage["name"] in lines and stage["seconds"] > 0.1 and stage["name"] != "separation":
            assert lines[stage["name"]].device_hours * 3600 == pytest.approx(stage["seconds"], rel=0.01)
            assert lines[stage["name"]].source.kind == "measured"
    assert plan.kept_hours == pytest.approx(run["hours_kept"], rel=0.001)
    assert plan.clips == pytest.approx(run["kept"], rel=0.001)
    written = {line.name: line for line in plan.storage}
    shards = list((out / "shards").rglob("*.tar"))
    assert written["shards"].files == len(shards)
    assert written["shards"].bytes == pytest.approx(sum(path.stat().st_size for path in shards), rel=0.02)
    assert written["units"].bytes == pytest.approx(folder_bytes(out / "work" / "units"), rel=0.05)


@pytest.mark.slow
def test_the_packages_sizes_plan_other_recordings(out: Path) -> None:
    """Two recordings of the eleven that the package's sizes are from: within a fifth."""
    plan = plan_of(out)
    run = json.loads((out / "run.json").read_text())
    hour = run["hours_kept"] / plan.kept_hours  # how much speech they have is no matter of sizes
    written = {line.name: line for line in plan.storage}
    assert written["shards"].bytes * hour == pytest.approx(folder_bytes(out / "shards"), rel=0.2)
    recordings = sum((SAMPLES / "recordings" / f"{name}.flac").stat().st_size for name in ("it-1", "ru-1"))
    assert written["recordings"].bytes == pytest.approx(recordings, rel=0.2)
    clips = pq.read_metadata(out / "clips.parquet")
    assert clips.num_rows == run["kept"]


@pytest.mark.slow
@pytest.mark.slow
def test_the_packages_rates_plan_the_core_hours_of_other_recordings(out: Path) -> None:
    """Within a third, on a machine that does nothing else; core-seconds of what ran, by stage and altogether."""
    stages = {stage["name"]: stage["seconds"] for stage in json.loads((out / "run.json").read_text())["stages"]}
    planned = {
        line.stage: line.device_hours * 3600
        for line in plan_of(out).stages
        if line.stage in stages and line.stage != "separation"  # none of the two has music
    }
    print({name: (round(planned[name], 1), round(stages[name], 1)) for name in planned})
    assert sum(planned.values()) == pytest.approx(sum(stages[name] for name in planned), rel=1 / 3)


@pytest.mark.slow
def test_a_run_on_object_storage_gives_the_same_rates(out: Path) -> None:
    local = read_rates([out / "run.json"])
    with s3_server():
        remote = to_path(f"s3://{BUCKET}/out")
        names = ["run.json", *(path.name for path in out.glob("*.parquet"))]
        names += [str(path.relative_to(out)) for path in (out / "shards").rglob("*.tar")]
        for name in names:
            write_atomically(remote / name, (out / name).read_bytes())
        found = read_rates([remote / "run.json"])
    # Files of work units are only looked at where that takes no request each.
    work = ("sizes.unit_clip", "sizes.labels_clip", "sizes.scan_recording")
    assert {name: known.value for name, known in found.known.items() if name not in work} == {
        name: known.value for name, known in local.known.items() if name not in work
    }
    assert found.source("cpu.quality").where == f"s3://{BUCKET}/out/run.json"


@pytest.mark.slow
def test_what_a_run_prints_as_yaml_is_read_again(out: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cluster.planner.rate_files", str(out / "run.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SAMPLES.parent)
    (tmp_path / "mine.yaml").write_text(done.stdout)
    assert yaml.safe_load(done.stdout)["sources"]["run"]["kind"] == "measured"
    assert read_rates([tmp_path / "mine.yaml"]).known == read_rates([out / "run.json"]).known
    assert rates_of_run(out / "run.json").cpu.quality is not None
    assert set(GPU_STAGES) <= set(STAGES)
