"""The watchdog: a rank that hangs ends with stacks, its rank and the step, and takes no other run with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.runs import ROOT, command, environment, metrics
from voxmill.core.errors import ExitStatus

HANGS = """
import sys, time
from training.run.watchdog import Watchdog

def hang_here():
    time.sleep(60)

with Watchdog(0.5, rank=3) as watchdog:
    time.sleep(1.5)
    print("the clock has not begun", flush=True)
    for step in range(4):
        watchdog.beat(step)
        time.sleep(0.3)
    hang_here()
"""


def test_stacks_rank_and_step_are_printed_and_the_status_is_its_own() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == ExitStatus.HUNG and "the clock has not begun" in done.stdout
    assert "rank 3: no step finished for 0.5 s after step 3" in done.stderr and "in hang_here" in done.stderr
    assert time.monotonic() - began < 20


def test_what_is_not_watched_any_more_may_take_its_time() -> None:
    script = """
import time
from training.run.watchdog import Watchdog
with Watchdog(0.2, rank=0) as watchdog:
    watchdog.beat(0)
time.sleep(1)
with Watchdog(None, rank=0) as watchdog:
    watchdog.beat(0)
    time.sleep(0.5)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.slow
def test_a_rank_that_stops_ends_the_run(encoded: Path, tmp_path: Path) -> None:
    """Two ranks, one of which is stopped by the system: the other waits for it in a sum, and reports it."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(encoded, out, "run.hang_seconds=4", "steps=2000", "run.save_every=2000", world=2),
        env=environment(),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(metrics(out)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(_worker(process.pid, rank=1), signal.SIGSTOP)
        said, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode not in (0, 75)
    assert "rank 0: no step finished for 4 s after step" in said and "all_reduce" in said
    assert f"exitcode  : {ExitStatus.HUNG}" in said


def _worker(launcher: int, *, rank: int) -> int:
    """The process of a rank among the launcher's children."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no process of rank {rank}")
