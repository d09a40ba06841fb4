"""Ranks that `--nproc` starts: the environment of torchrun, and the status of the run whatever ends it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.runs import ROOT, arguments, command, environment, figures, metrics, train
from voxmill.cli.app import run as command_line

RANKS = """
import sys
from training.launch import local_ranks
local_ranks.OTHERS_SECONDS = 1.0
sys.exit(local_ranks.run_ranks(sys.argv[2:], int(sys.argv[1])))
"""
WAITS = """
import json, os, pathlib, signal, sys, time
out, rank = pathlib.Path(sys.argv[1]), int(os.environ["RANK"])
own = {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
if sys.argv[2] == "ends":
    time.sleep(0.3 * rank)
    sys.exit(int(sys.argv[3 + rank]))
def stop(number, frame):
    time.sleep(0.3 * rank)  # a checkpoint is written
    sys.exit(int(sys.argv[3 + rank]))
signal.signal(signal.SIGTERM, stop)
(out / f"{rank}.txt").write_text(json.dumps(own))
time.sleep(60)
"""


def start(tmp_path: Path, *words: str, count: int = 2) -> "subprocess.Popen[str]":
    ranks = [sys.executable, "-c", WAITS, str(tmp_path), *words]
    ours = [sys.executable, "-c", RANKS, str(count), *ranks]
    return subprocess.Popen(ours, env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for(tmp_path: Path, count: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.txt"))) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("statuses", "wanted"), [(("75", "75"), 75), (("75", "1"), 1), (("0", "0"), 0)])
def test_sigterm_reaches_all_ranks_and_their_status_comes_back(
    tmp_path: Path, statuses: tuple[str, str], wanted: int
) -> None:
    process = start(tmp_path, "waits", *statuses)
    wait_for(tmp_path, 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == wanted
    own = [json.loads((tmp_path / f"{rank}.txt").read_text()) for rank in (0, 1)]
    assert [one["RANK"] for one in own] == [one["LOCAL_RANK"] for one in own] == ["0", "1"]
    assert own[0]["MASTER_PORT"] == own[1]["MASTER_PORT"] and own[0]["WORLD_SIZE"] == own[1]["WORLD_SIZE"] == "2"


@pytest.mark.parametrize(("statuses", "wanted"), [(("0", "0", "0"), 0), (("0", "2", "1"), 2), (("0", "0", "76"), 76)])
def test_the_first_failure_is_the_status(tmp_path: Path, statuses: tuple[str, ...], wanted: int) -> None:
    assert start(tmp_path, "ends", *statuses, count=3).wait(timeout=60) == wanted


def test_a_killed_rank_takes_the_others_with_it(tmp_path: Path) -> None:
    dies = WAITS.replace("time.sleep(60)", "time.sleep(60 if rank else 0); os.kill(os.getpid(), 9)")
    ranks = [sys.executable, "-c", dies]
    done = subprocess.run(
        [sys.executable, "-c", RANKS, "2", *ranks, str(tmp_path), "waits"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and done.stderr.endswith("rank 0 was killed by SIGKILL\n")


def test_two_ways_of_starting_ranks_are_refused(encoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(encoded, Path("out"), "num_workers=2")
    assert command_line(["train", "--nproc", "2", *words]) == 2
    assert "--nproc starts ranks on this machine, num_workers=N under Ray Train" in capsys.readouterr().err


def by_voxmill(encoded: Path, out: Path, *overrides: str) -> "subprocess.Popen[str]":
    words = ["train", "--nproc", "2", *arguments(encoded, out, "run.tracking_uri=none", *overrides)]
    script = "import sys; from voxmill.cli.app import run; sys.exit(run(sys.argv[1:]))"
    ours = [sys.executable, "-c", script, *words]
    return subprocess.Popen(
        ours, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


@pytest.mark.slow
def test_two_ranks_stop_with_75_and_resume_with_the_losses_of_torchrun(encoded: Path, tmp_path: Path) -> None:
    out, long = tmp_path / "out", "run.save_every=100"
    process = by_voxmill(encoded, out, long)
    deadline = time.monotonic() + 240
    while len(metrics(out)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 75 and "stopped by a signal after step" in said, said[-3000:]
    again = by_voxmill(encoded, out, long)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and "resuming from" in said, said[-3000:]
    train(encoded, tmp_path / "torchrun", world=2)
    assert figures(out) == figures(tmp_path / "torchrun")


@pytest.mark.slow
def test_one_process_stops_with_75_and_torchrun_answers_1_but_saves(encoded: Path, tmp_path: Path) -> None:
    """What docs/cluster.md says of torchrun: its ranks save and say so, and its own status is 1."""
    for world, status in ((1, 75), (2, 1)):
        out = tmp_path / str(world)
        words = command(encoded, out, "run.save_every=1000", "steps=1000", world=world)
        with (tmp_path / "log.txt").open("wb") as log:
            process = subprocess.Popen(words, env=environment(), stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while len(metrics(out)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == status
        assert "stopped by a signal after step" in (tmp_path / "log.txt").read_text(errors="replace")
        assert len(list((out / "checkpoints").glob("step-*"))) == 2
