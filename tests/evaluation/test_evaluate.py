"""The whole job as a user runs it: two real engines on a short list, tracked, reported, and run again."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.results.records import read_scores
from evaluation.results.report import write_reports  # noqa: F401  (the module that the job imports late must import)
from samples.fabricate import cut, turns
from voxmill.cli.app import run as voxmill
from voxmill.cli.demo import submit
from voxmill.cli.evaluation.evaluate import read_items
from voxmill.core.local_ray import environment, free_port, local_ray

ENGINES = pytest.mark.skipif(
    not (shutil.which("espeak-ng") and shutil.which("flite")),
    reason="espeak-ng and flite are not installed (Debian: apt-get install -y espeak-ng flite)",
)
ESPEAK = "espeak=command:espeak-ng -v {language} -w {output} -- {text}"
FLITE = "flite=command:flite -voice slt -o {output} -t {text}"
ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<script>alert(1)</script> & \"quoted\" | 'text'"


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "voxmill", "evaluate", *arguments]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment, timeout=400)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("list")
    lines: list[dict[str, str]] = []
    for start, end, text in turns("en-2", 3):
        cut("en-2", start, end, folder / "reference.wav")
        lines.append({"id": f"en-{len(lines)}", "text": text, "language": "en", "reference": "reference.wav"})
    lines.append({"id": "<b>x", "text": "no", "language": "en"})
    path = folder / "list.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


@ENGINES
def test_two_engines_end_to_end_and_again(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [f"texts:{texts}", "--system", ESPEAK, "--system", FLITE, "-o", str(out)]
    done = run(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        "30 scores computed, 0 read from the cache" in done.stdout and f"report: {out / 'report.html'}" in done.stdout
    )
    results = json.loads((out / "results.json").read_text())
    assert {(run["system"], run["counts"]["ok"]) for run in results["runs"]} == {("espeak", 3), ("flite", 3)}
    assert len(results["runs"][0]["malformed"]) == 1
    metrics = {score["metric"] for score in results["scores"]}
    assert metrics == {"official", "strict", "repetition", "length_ratio", "similarity", "dnsmos"}
    for score in results["scores"]:
        assert score["estimate"]["low"] <= score["estimate"]["value"] <= score["estimate"]["high"]
    assert {v["metric"] for v in results["verdicts"]} == metrics - {"length_ratio"}
    for page in ((out / "report.html").read_text(), (out / "report.md").read_text()):
        assert "Whisper base (embedded)" in page and "CAM++ (embedded)" in page and "not distinguishable" in page
    # MLflow: a parent with a child a system, metrics with intervals, and the audio of the examples.
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("voxmill")
    assert experiment is not None
    logged = client.search_runs([experiment.experiment_id])
    parents = [run for run in logged if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1 and len(logged) == 3
    for child in (run for run in logged if run is not parents[0]):
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id and child.info.status == "FINISHED"
        assert {
            "en.strict",
            "en.strict.low",
            "en.strict.high",
            "en.similarity",
            "count.ok",
        } <= child.data.metrics.keys()
        assert {"dataset_sha256", "normaliser", "model.recognition", "system.command"} <= child.data.params.keys()
        places = {item.path for item in client.list_artifacts(child.info.run_id, "examples")}
        assert places == {"examples/best", "examples/median", "examples/worst"}

    before = {path: path.stat().st_mtime_ns for path in (out / "wavs").rglob("*.wav")}
    # Again, with a tracking server that is not there: nothing is computed, nothing lost, and the job says so.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
    again = run(*command, "tracking.timeout_seconds=2", MLFLOW_TRACKING_URI=uri)
    assert again.returncode == 1 and "0 scores computed, 30 read from the cache" in again.stdout, (
        again.stdout + again.stderr
    )
    assert "does not take the runs" in again.stderr and str(out / "mlflow.db") in again.stderr
    assert "Traceback" not in again.stderr and uri in (out / "report.html").read_text()
    assert len(client.search_runs([experiment.experiment_id])) == 6
    assert {path: path.stat().st_mtime_ns for path in (out / "wavs").rglob("*.wav")} == before


def test_a_folder_of_wavs_is_scored_and_texts_are_escaped(tmp_path: Path) -> None:
    (start, end, text), (first, last, _) = turns("en-1", 2)
    cut("en-1", start, end, tmp_path / "wavs" / "good.wav")
    cut("en-1", first, last, tmp_path / "wavs" / "other.wav")
    lines = [
        {"id": "good", "text": text, "language": "en"},
        {"id": "other", "text": HOSTILE, "language": "en"},
        {"id": "gone", "text": "Never spoken.", "language": "en"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    out = tmp_path / "out"
    settings = ["tracking.enabled=false", "scoring.metrics=[transcript]", "progress=false"]
    arguments = [
        "evaluate",
        f"texts:{tmp_path / 'list.jsonl'}",
        "--system",
        f"peer=wavs:{tmp_path / 'wavs'}",
        "--out",
        str(out),
        *settings,
    ]
    assert voxmill(arguments) == 0
    scores = read_scores(out)[("texts", "peer")]
    assert [score.status for score in scores] == ["ok", "ok", "missing"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "1 missing" in page
    assert "gone" in page and "gone.wav is not there" in page
    assert "<script" not in (out / "report.md").read_text(encoding="utf-8")


SPEAKING = """
import sys, shutil
with open(__file__ + ".log", "a") as log: log.write(sys.argv[1] + chr(10))
shutil.copy(sys.argv[3], sys.argv[2])
"""


def test_what_was_spoken_is_used_again_and_the_screen_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, end, _ = turns("en-1", 1)[0]
    cut("en-1", start, end, tmp_path / "voice.wav")
    (tmp_path / "tts.py").write_text(SPEAKING)
    texts = ["first", "second", "third"]
    lines = [json.dumps({"id": text, "text": text, "language": "en", "reference": None}) for text in texts]
    (tmp_path / "list.jsonl").write_text("\n".join(lines), encoding="utf-8")
    program = f"{shlex.quote(sys.executable)} {tmp_path / 'tts.py'}"
    line = f"{program} {{text}} {{output}} {tmp_path / 'voice.wav'}"
    settings = ["scoring.metrics=[]", "tracking.enabled=false", "progress=false"]

    def speak(*more: str) -> str:
        system = ["--system", f"mine=command:{line}", "--out", str(tmp_path / "out")]
        assert voxmill(["evaluate", f"texts:{tmp_path / 'list.jsonl'}", *system, *settings, *more]) == 0
        return capsys.readouterr().err

    def spoken() -> list[str]:
        return (tmp_path / "tts.py.log").read_text().split()

    assert "spoken before" not in speak("limit=2") and sorted(spoken()) == ["first", "second"]
    # Another limit: two are there. Another text: that one is spoken.
    assert "mine on texts: 2 spoken before, used again" in speak("limit=3") and spoken()[2:] == ["third"]
    (tmp_path / "list.jsonl").write_text("\n".join([lines[2], lines[0].replace("first", "other")]), encoding="utf-8")
    assert "mine on texts: 1 spoken before" in speak() and spoken()[3:] == ["other"]
    # Another program: all of it.
    (tmp_path / "tts.py").write_text(SPEAKING + "# better\n")
    said = speak()
    assert "spoken before" not in said and sorted(spoken()[4:]) == ["other", "third"]
    assert "tts.py changes" in said or "tts.py," in said


def test_a_list_without_speech_is_no_success_and_all_that_is_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wavs").mkdir()
    lines = [json.dumps({"id": f"u{number}", "text": "Hello.", "language": "en"}) for number in range(7)]
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join([*lines, "no JSON"]), encoding="utf-8")
    arguments = [
        "evaluate",
        f"texts:{path}",
        "--system",
        f"peer=wavs:{tmp_path / 'wavs'}",
        "--out",
        str(tmp_path / "o"),
    ]
    assert voxmill([*arguments, "tracking.enabled=false", "progress=false"]) == 1
    said = capsys.readouterr().err
    assert f"skipped: {path}, line 8: not valid JSON" in said
    assert "peer on texts: 7 missing (u0: u0.wav is not there; u1" in said and "; and 2 more)" in said
    assert "peer on texts: none of 7 utterances has a score" in said and "Traceback" not in said


@pytest.mark.slow
def test_two_ray_workers_give_the_same_scores(tmp_path: Path) -> None:
    lines = []
    for index, (start, end, text) in enumerate(turns("en-1", 6)):
        cut("en-1", start, end, tmp_path / "wavs" / f"{index}.wav")
        lines.append({"id": str(index), "text": text, "language": "en", "reference": "wavs/0.wav"})
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    job = [sys.executable, "evaluation/evaluate.py", f"texts:{tmp_path / 'list.jsonl'}", "tracking.enabled=false"]
    job += ["--system", f"peer=wavs:{tmp_path / 'wavs'}", "--out"]
    subprocess.run([*job, str(tmp_path / "here")], check=True, timeout=300)
    with local_ray(num_cpus=2) as address:
        where = environment() | {"RAY_ADDRESS": address}
        done = subprocess.run([*job, str(tmp_path / "ray")], env=where, timeout=500, capture_output=True, text=True)
    assert done.returncode == 0 and "0 read from the cache" in done.stdout, done.stderr[-2000:]
    assert read_scores(tmp_path / "ray") == read_scores(tmp_path / "here")


@pytest.mark.slow
def test_a_ray_job_scores_as_this_process_does(tmp_path: Path) -> None:
    lines = []
    for index, (start, end, text) in enumerate(turns("en-1", 5)):
        cut("en-1", start, end, tmp_path / "wavs" / f"{index}.wav")
        lines.append({"id": str(index), "text": text, "language": "en", "reference": "wavs/0.wav"})
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    job = ["python", "evaluation/evaluate.py", f"texts:{tmp_path / 'list.jsonl'}", "tracking.enabled=false"]
    job += ["--system", f"peer=wavs:{tmp_path / 'wavs'}", "--out"]
    subprocess.run([sys.executable, *job[1:], str(tmp_path / "here")], check=True, cwd=ROOT, timeout=300)
    port = free_port()
    with local_ray(port, num_cpus=2):
        ray = [str(Path(sys.executable).parent / "ray"), "job", "submit", f"--address=http://127.0.0.1:{port}"]
        assert submit([*ray, f"--working-dir={ROOT}", "--", *job, str(tmp_path / "ray")]) == 0
        # A mistake of the user ends the job as failed.
        assert submit([*ray, f"--working-dir={ROOT}", "--", *job[:2], "nothing:x"]) != 0
    assert read_scores(tmp_path / "ray") == read_scores(tmp_path / "here")


SEEDED = """
import sys, numpy, soundfile
samples, rate = soundfile.read(sys.argv[1], dtype="float32")
noise = numpy.random.default_rng(int(sys.argv[3])).normal(size=len(samples)).astype("float32")
soundfile.write(sys.argv[2], samples + 0.01 * int(sys.argv[3]) * noise, rate)
"""


def test_the_spread_of_several_seeds_is_reported_beside_the_interval(tmp_path: Path) -> None:
    """A real program that is noisier with each seed: DNSMOS differs, and both reports say by how much."""
    lines = []
    for index, (start, end, text) in enumerate(turns("en-1", 3)):
        cut("en-1", start, end, tmp_path / f"{index}.wav")
        lines.append({"id": str(index), "text": text, "language": "en", "reference": f"{index}.wav"})
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    (tmp_path / "seeded.py").write_text(SEEDED)
    out = tmp_path / "out"
    system = f"noisy=command:{shlex.quote(sys.executable)} {tmp_path / 'seeded.py'} {{reference}} {{output}} {{seed}}"
    settings = ["seeds=[0,1,2]", "scoring.metrics=[dnsmos]", "tracking.enabled=false", "progress=false"]
    assert (
        voxmill(["evaluate", f"texts:{tmp_path / 'list.jsonl'}", "--system", system, "--out", str(out), *settings]) == 0
    )
    scores = read_scores(out)[("texts", "noisy")]
    assert sorted({one.seed for one in scores}) == [0, 1, 2] and len(scores) == 9
    (score,) = json.loads((out / "results.json").read_text())["scores"]
    means = [np.mean([one.dnsmos.ovr for one in scores if one.dnsmos and one.seed == seed]) for seed in (0, 1, 2)]
    assert score["seed_deviation"] == pytest.approx(np.std(means, ddof=1)) and score["seed_deviation"] > 0.05
    assert score["estimate"]["n"] == 3
    for page in ((out / "report.html").read_text(), (out / "report.md").read_text()):
        assert f"± {score['seed_deviation']:.2f} over seeds (n 3)" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--system", "a=wavs:x", "--out", "o"], "no benchmark"),
        (["texts:x.jsonl", "--out", "o"], "no system"),
        (["texts:x.jsonl", "--system", "a=wavs:x"], "no --out"),
        (["text:x.jsonl", "--system", "a=wavs:x", "--out", "o"], "names no benchmark"),
        (["texts:x.jsonl", "--system", "a=wavs:x", "--out", "o", "scoring.metric=1"], "did you mean 'scoring.metrics'"),
        (["texts:x.jsonl", "--system", "a=wavs:x", "--out", "o", "a.yaml", "b.yaml"], "one argument too many"),
        (["texts:x.jsonl", "--system"], "--system"),
        (["texts:x.jsonl", "--system", "a=wavs:x", "--out", "o", "--sim", "wavlm"], "write KIND=PATH"),
        (
            ["texts:x.jsonl", "--system", "a=wavs:x", "--out", "o", "--sim", "wavlm=a", "--sim", "eres2net=b"],
            "two --sim",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_reported(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxmill(["evaluate", *arguments]) == 2
    line = capsys.readouterr().err
    assert line.startswith("voxmill evaluate") and line.count("\n") == 1 and message in line


def test_a_mistake_is_one_line_and_exit_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        voxmill(
            ["evaluate", f"texts:{tmp_path}/none.jsonl", "--system", f"a=wavs:{tmp_path}", "--out", str(tmp_path / "o")]
        )
        == 2
    )
    message = capsys.readouterr().err
    assert message.startswith("voxmill evaluate: ") and message.count("\n") == 1 and "not there" in message


def test_a_weight_file_of_sim_is_named_on_the_command_line_and_looked_for_before_anyone_speaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps({"id": "a", "text": "Hello.", "language": "en"}))
    command = [
        "evaluate",
        f"texts:{tmp_path / 'list.jsonl'}",
        "--system",
        f"a=wavs:{tmp_path}",
        "--out",
        str(tmp_path / "o"),
    ]
    gone = f"eres2net={tmp_path}/gone.ckpt"
    assert read_items(command[1:2], [gone])[1].scoring.similarity.encoder == "eres2net"
    assert voxmill([*command, "--sim", gone]) == 2
    message = capsys.readouterr().err
    assert "gone.ckpt: no such file" in message and message.count("\n") == 1 and not (tmp_path / "o").exists()
