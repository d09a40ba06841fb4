"""Runs under Ray Train on a real local Ray: the same losses as under torchrun, after a stop and after a killed rank."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import ROOT, arguments, environment, figures, metrics, train
from training.launch.launch_config import LaunchConfig, read_launch
from training.launch.ray_launch import _uses_gpu
from voxmill.cli.demo import submit
from voxmill.core import local_ray
from voxmill.core.errors import UserError


def test_launch_settings_are_separated_from_the_recipe_s() -> None:
    launch, rest = read_launch(["num_workers=2", "rows=4", "max_failures=0"])
    assert launch == LaunchConfig(num_workers=2, max_failures=0) and rest == ["rows=4"]
    assert read_launch(["rows=4"]) == (None, ["rows=4"])
    with pytest.raises(UserError, match="add num_workers=N"):
        read_launch(["use_gpu=true"])
    with pytest.raises(UserError, match="num_workers"):
        read_launch(["num_workers=0"])


def test_what_the_cluster_cannot_hold_is_refused_unless_it_grows() -> None:
    there = {"CPU": 4.0, "GPU": 2.0}
    assert _uses_gpu(LaunchConfig(num_workers=2), there) is True
    assert _uses_gpu(LaunchConfig(num_workers=4, use_gpu=False), there) is False
    assert _uses_gpu(LaunchConfig(num_workers=2), {"CPU": 2.0}) is False
    with pytest.raises(UserError, match="needs 3 GPUs, the cluster has 2"):
        _uses_gpu(LaunchConfig(num_workers=3), there)
    with pytest.raises(UserError, match="needs 6 CPUs, the cluster has 4"):
        _uses_gpu(LaunchConfig(num_workers=2, cpus_per_worker=3), there)
    assert _uses_gpu(LaunchConfig(num_workers=64, autoscale=True), there) is True


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        with local_ray.local_ray(num_cpus=2) as address:
            yield address


class Job:
    """A run under Ray Train as a process of its own; its output is in `log`."""

    def __init__(self, address: str, encoded: Path, out: Path, *overrides: str) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        self.log = out.with_suffix(".log")
        command = [
            sys.executable,
            str(ROOT / "training" / "train.py"),
            *arguments(encoded, out, "num_workers=2", *overrides),
        ]
        ours = local_ray.environment() | environment() | {"RAY_ADDRESS": address}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=ours, stdout=log, stderr=log)

    def status(self) -> int:
        return self.process.wait(timeout=240)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, out: Path, steps: int) -> None:
        deadline = time.monotonic() + 200
        while len(metrics(out)) < steps and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.process.poll() is None and len(metrics(out)) >= steps, self.output()[-4000:]


@pytest.fixture(scope="module")
def under_torchrun(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("torchrun") / "out"
    train(encoded, out, world=2)
    return out


@pytest.mark.slow
def test_the_losses_are_those_of_torchrun(address: str, encoded: Path, under_torchrun: Path, tmp_path: Path) -> None:
    job = Job(address, encoded, tmp_path / "out")
    assert job.status() == 0, job.output()[-4000:]
    assert figures(tmp_path / "out") == figures(under_torchrun)
    assert (tmp_path / "out" / "export" / "model.safetensors").exists()


@pytest.mark.slow
def test_sigterm_saves_the_same_command_resumes_and_ctrl_c_is_no_success(
    address: str, encoded: Path, under_torchrun: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # Long enough that the signal finds it running.
    longer = ("steps=400", "run.save_every=400")
    job = Job(address, encoded, out, *longer)
    job.wait_for(out, 3)
    job.process.send_signal(signal.SIGTERM)
    assert job.status() == 75, job.output()[-4000:]
    done = len(metrics(out))
    assert 3 <= done < 400 and "stopped by a signal after step" in job.output()
    again = Job(address, encoded, out, *longer)
    again.wait_for(out, done + 1)
    assert "resuming from" in again.output()
    again.process.send_signal(signal.SIGINT)
    assert again.status() == 130, again.output()[-4000:]
    assert again.output().strip().splitlines()[-1].endswith("progress is saved; run the same command again to resume")
    assert [line["step"] for line in metrics(out)] == list(range(len(metrics(out))))


@pytest.mark.slow
def test_a_killed_rank_is_started_again_and_the_losses_are_the_same(
    address: str, encoded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    longer = ("steps=40", "run.save_every=4")
    job = Job(address, encoded, out, *longer)
    job.wait_for(out, 6)
    pid = re.findall(r"pid=(\d+)\) world_rank=1", job.output())
    os.kill(int(pid[-1]), signal.SIGKILL)
    assert job.status() == 0, job.output()[-4000:]
    assert "resuming from" in job.output()
    train(encoded, tmp_path / "whole", *longer, world=2)
    assert figures(out) == figures(tmp_path / "whole")


@pytest.mark.slow
def test_a_mistake_that_ranks_find_is_one_line_and_no_restart(
    address: str, encoded: Path, under_torchrun: Path
) -> None:
    job = Job(address, encoded, under_torchrun, "seed=5")
    assert job.status() == 2, job.output()[-4000:]
    assert "seed: 0 -> 5" in job.output().strip().splitlines()[-1]
    assert "Traceback" not in job.output()


@pytest.mark.slow
def test_a_submitted_job_trains_as_torchrun_does(encoded: Path, under_torchrun: Path, tmp_path: Path) -> None:
    port = local_ray.free_port()
    with local_ray.local_ray(port, num_cpus=2):
        ray = [str(Path(sys.executable).parent / "ray"), "job", "submit", f"--address=http://127.0.0.1:{port}"]
        command = ["python", "training/train.py", *arguments(encoded, tmp_path / "out", "num_workers=2")]
        assert submit([*ray, f"--working-dir={ROOT}", "--", *command]) == 0
    assert figures(tmp_path / "out") == figures(under_torchrun)
