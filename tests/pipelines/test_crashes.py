"""Processes die, disks fill up: nothing is lost, nothing comes twice, the same command resumes."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.units.attempts import open_attempts
from samples import bad_input
from samples.annotate_process import finish_job, run_job, start_job
from voxmill.core.local_ray import local_ray
from voxmill.data.records import StageName

CHOSEN = ("truncated.flac", "silence.wav", "a/same name.flac", "emoji 🎙.flac", "dotted.name.v1.2.flac", "text.wav")

# A start of all models is what these tests take their time for: those of voices are of no interest to them.
NO_VOICES = ("voice_attributes.labellers=[]", "corpus_labels.labels=[]")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_ray(num_cpus=2) as address:
        yield address


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the bad inputs: each crash costs a start of all models."""
    folder = tmp_path_factory.mktemp("few") / "in"
    bad_input.make(folder)
    for name in set(bad_input.CASES) - set(CHOSEN):
        (folder / name).unlink()
    return folder


def states(out: Path) -> dict[str, tuple[str, str | None]]:
    return {row["path"]: (row["state"], row["reason"]) for row in pq.read_table(out / "recordings.parquet").to_pylist()}


@pytest.mark.slow
def test_a_recording_that_ends_its_worker_is_named_and_rejected(corpus: Path, address: str, tmp_path: Path) -> None:
    """Whoever begins to segment the guilty recording is killed, again and again, as a broken driver would do it."""
    out = tmp_path / "out"
    job = start_job(corpus, out, address, "run.workers=1", "label.unit_seconds=2", *NO_VOICES)
    guilty = ""
    killed: set[int] = set()
    # Every kill costs a start of all models, which takes a minute on a busy machine.
    deadline = time.monotonic() + 900
    while job.poll() is None and time.monotonic() < deadline:
        for unit, attempts in open_attempts(out):
            for attempt in attempts:
                if attempt.stage is not StageName.SEGMENTATION or attempt.ended or (guilty and unit != guilty):
                    continue
                guilty = unit
                if attempt.pid not in killed:
                    killed.add(attempt.pid)
                    os.kill(attempt.pid, signal.SIGKILL)
        time.sleep(0.005)
    finish_job(job, out)
    outcomes = states(out)
    crashed = [name for name, (_, reason) in outcomes.items() if reason == "crash"]
    assert len(crashed) == 1 and sorted(outcomes) == sorted(CHOSEN)
    row = next(r for r in pq.read_table(out / "recordings.parquet").to_pylist() if r["path"] == crashed[0])
    assert row["stage"] == "segmentation" and row["state"] == "rejected"
    assert len(killed) >= 6 and "again by itself" in out.with_suffix(".log").read_text()


def test_a_full_disk_ends_with_one_line_and_the_same_command_resumes(
    corpus: Path, address: str, tmp_path: Path
) -> None:
    small = tmp_path / "small disk"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=220k", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        job = start_job(corpus, small / "out", address, "run.workers=1", *NO_VOICES)
        log = small / "out.log"
        assert job.wait(timeout=300) == 1
        last = log.read_text().strip().splitlines()[-1]
        assert re.search(r"No space left on device.*run the same command again to resume", last), last
        assert "Traceback" not in log.read_text()
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        run_job(corpus, small / "out", address, "run.workers=1", *NO_VOICES)
        assert sorted(states(small / "out")) == sorted(CHOSEN)
        assert json.loads((small / "out" / "run.json").read_text())["kept"] > 0
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
