"""`voxmill plan data`: its tables and its JSON, refusals with a change that works, and mistakes in one line."""

import json

import pytest

from voxmill.cli.app import run

MACHINES = ("--gpus", "8", "--driver-memory", "3000")


def planned(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of the command."""
    capsys.readouterr()
    assert run(["plan", *words]) == status
    output = capsys.readouterr()
    return output.out, output.err


def test_tables_have_every_stage_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = planned(capsys, "--audio-hours", "1e4", *MACHINES, "--gpu-price", "2.5")
    for words in ("transcription", "GPU", "core", "bound by", "latents", "driver", "total: ", "GPU-hours", "measured"):
        assert words in text
    assert "GPUs: " in text and "2.5 an hour" in text
    assert max(map(len, text.partition("total: ")[0].splitlines()[1:])) <= 80
    assert "emotion" not in text
    named, _ = planned(capsys, "--audio-hours", "1e4", *MACHINES, "voice_attributes.emotion.model=somebody/emotion")
    assert "emotion" in named


def test_json_is_one_line_with_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = planned(capsys, "data", "--audio-hours", "1e4", *MACHINES, "--json")
    plan = json.loads(text)
    assert text.count("\n") == 1 and plan["possible"] and not plan["problems"]
    assert plan["gpu_hours"] == pytest.approx(sum(s["device_hours"] for s in plan["stages"] if s["device"] == "GPU"))
    assert plan["days"] == pytest.approx(sum(phase["days"] for phase in plan["phases"]))
    assert {stage["source"]["kind"] for stage in plan["stages"]} <= {"measured", "assumed"}
    assert plan["possible_with"]["cores"] == plan["cores"]


def test_a_refused_plan_is_shown_and_possible_with_what_it_offers(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--audio-hours", "1e4", "--gpus", "8", "--cores", "50", "--driver-memory", "0.5", "--days", "1"]
    text, error = planned(capsys, *words, status=2)
    assert "total: " in text and error.count("\n") == 1 and error.startswith("voxmill plan data: the driver takes")
    offered = error.partition(": possible with ")[2].split()
    assert {"--cores", "--driver-memory"} <= set(offered)
    planned(capsys, *words, *offered)
    line, _ = planned(capsys, *words, "--json", status=2)
    plan = json.loads(line)
    assert not plan["possible"] and len(plan["problems"]) >= 3 and all(one["changes"] for one in plan["problems"])
    assert str(plan["possible_with"]["cores"]) in offered


def test_without_cores_there_are_as_many_as_the_gpus_need(capsys: pytest.CaptureFixture[str]) -> None:
    line, _ = planned(capsys, "--audio-hours", "1e4", *MACHINES, "--json")
    cores = json.loads(line)["cores"]
    planned(capsys, "--audio-hours", "1e4", *MACHINES, "--cores", str(cores))
    _, error = planned(capsys, "--audio-hours", "1e4", *MACHINES, "--cores", str(cores - 1), status=2)
    assert f"possible with --cores {cores}" in error


def test_the_recipe_decides_stages_units_and_shards(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--audio-hours", "1e4", *MACHINES, "--json")
    usual = json.loads(planned(capsys, *words)[0])
    other = json.loads(
        planned(
            capsys, *words, "label.unit_seconds=600", "write.shard_megabytes=64", "voice_attributes.labellers=[speaker]"
        )[0]
    )
    assert other["units"] > usual["units"]  # units are of half an hour where there are GPUs
    files = [{line["name"]: line["files"] for line in plan["storage"]} for plan in (usual, other)]
    assert files[1]["shards"] > files[0]["shards"]
    assert "prosody" not in {stage["stage"] for stage in other["stages"]}


def test_gender_is_on_a_gpu_only_as_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    for settings, device in (((), "core"), (("voice_attributes.gender.model=somebody/gender",), "GPU")):
        plan = json.loads(planned(capsys, "--audio-hours", "1e4", *MACHINES, "--json", *settings)[0])
        assert [stage["device"] for stage in plan["stages"] if stage["stage"] == "gender"] == [device]


def test_the_short_forms_stand_for_their_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys, "--gpus", "8", "--audio-hours=1e4", "--driver-memory", "3000") == planned(
        capsys, "data", "--audio-hours", "1e4", *MACHINES
    )
    assert planned(capsys, "tiny", "--gpus", "2") == planned(capsys, "train", "tiny", "--gpus", "2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--audio-hours 0 --gpus 8", "--audio-hours 0: must be a number above 0"),
        ("--audio-hours -5 --gpus 8", "--audio-hours -5: must be a number above 0"),
        ("--audio-hours nan --gpus 8", "--audio-hours nan: must be a number above 0"),
        ("--audio-hours inf --gpus 8", "--audio-hours inf: must be a number above 0"),
        ("--audio-hours 1e12 --gpus 8", "--audio-hours 1e+12: more than 1e+09; is it in seconds?"),
        ("--audio-hours many --gpus 8", "invalid value for '--audio-hours'"),
        ("--audio-hours", "option '--audio-hours' requires an argument"),
        ("data --gpus 8", "missing option '--audio-hours'"),
        ("--audio-hours 10", "no machines: give --gpus, --cores or both"),
        ("--audio-hours 10 --gpus 0", "no machines: give --gpus, --cores or both"),
        ("--audio-hours 10 --gpus -1", "--gpus -1: must be 0 or a number above 0"),
        ("--audio-hours 10 --gpus 1 --cores 0", "--cores 0: must be a number above 0"),
        ("--audio-hours 10 --gpus 1 --days nan", "--days nan"),
        ("--audio-hours 10 --gpus 1 --sample-rate 0", "--sample-rate 0"),
        ("--audio-hours 10 --gpus 1 --gpu-price -1", "--gpu-price -1"),
        ("--audio-hours 10 --gpus 1 --rates gone.yaml", "gone.yaml: cannot be read"),
        ("--audio-hours 10 --gpus 1 --run-json gone.json", "gone.json: cannot be read"),
        ("--audio-hours 10 --gpus 1 label.unit_second=3", "did you mean 'label.unit_seconds'"),
        ("--audio-hours 10 --hours-per-gpu-hour 5", "--hours-per-gpu-hour is gone: rates are by stage"),
        ("--audio-hours 10 --gpus 1 --train-positions 5", "no such option: --train-positions"),
    ],
)
def test_a_mistake_is_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, error = planned(capsys, *words.split(), status=2)
    assert message in error and error.count("\n") == 1 and error.startswith("voxmill plan data: ") and not text
