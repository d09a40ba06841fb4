"""The deepspeed launcher starts the same run as torchrun; where the optimizer lives changes no loss."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import ROOT, arguments, environment, figures, metrics, stop, train
from voxmill.core.local_ray import free_port

pytestmark = pytest.mark.slow


def by_deepspeed(encoded: Path, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The command of docs/cluster.md for a CPU, with 2 ranks."""
    folder = Path(sys.executable).parent
    command = [
        str(folder / "deepspeed"),
        "--num_gpus",
        "2",
        "--master_port",
        str(free_port()),
        "training/train.py",
        *arguments(encoded, out, *overrides),
    ]
    ours = environment() | {"DS_ACCELERATOR": "cpu", "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, env=ours, cwd=ROOT, capture_output=True, text=True, timeout=280)


def test_the_deepspeed_launcher_gives_the_losses_of_torchrun(encoded: Path, tmp_path: Path) -> None:
    done = by_deepspeed(encoded, tmp_path / "deepspeed")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    train(encoded, tmp_path / "torchrun", world=2)
    assert figures(tmp_path / "deepspeed") == figures(tmp_path / "torchrun")


def test_the_deepspeed_launcher_passes_the_status_of_a_mistake(encoded: Path, tmp_path: Path) -> None:
    done = by_deepspeed(encoded, tmp_path / "out", "rows=3")
    assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-3000:]
    assert "voxmill train: rows = 3 cannot be divided by 2 ranks; change either" in done.stderr


@pytest.mark.parametrize(
    ("zero", "keys"),
    [
        (2, ["engine.overlap_comm=true", "engine.bucket_size=1000000", "engine.activation_checkpointing=0.5"]),
        (3, ["engine.overlap_comm=false", "engine.bucket_size=1000000"]),
    ],
)
def test_how_ranks_communicate_changes_no_digit(encoded: Path, tmp_path: Path, zero: int, keys: list[str]) -> None:
    train(encoded, tmp_path / "plain", f"engine.zero={zero}", world=2)
    train(encoded, tmp_path / "other", f"engine.zero={zero}", *keys, world=2)
    assert figures(tmp_path / "other") == figures(tmp_path / "plain")


def test_a_second_copy_of_the_weights_in_a_machine_gives_the_same_losses(encoded: Path, tmp_path: Path) -> None:
    """hpZ on two machines of two ranks, stopped and resumed, with an average that is validated."""
    keys = ["engine.zero=3", "optimizer.ema=0.9", "optimizer.eps=0.001"]
    keys += ["validation={every: 3, share: 0.2, count: 2, listen: 0}"]
    train(encoded, tmp_path / "plain", *keys, world=4)
    stop(encoded, tmp_path / "hpz", *keys, "engine.hpz=2", after=5, how=signal.SIGKILL, world=4)
    train(encoded, tmp_path / "hpz", *keys, "engine.hpz=2", world=4)
    found, wanted = figures(tmp_path / "hpz"), figures(tmp_path / "plain")
    assert [line[1] for line in found] == pytest.approx([line[1] for line in wanted], rel=2e-6)
    held_out = [
        [line["validation"]["loss"] for line in metrics(tmp_path / run) if "validation" in line]
        for run in ("hpz", "plain")
    ]
    assert len(held_out[0]) >= 2 and held_out[0] == pytest.approx(held_out[1], rel=2e-6)


@pytest.mark.parametrize("zero", [2, 3])
def test_an_optimizer_in_cpu_memory_gives_the_same_losses(encoded: Path, tmp_path: Path, zero: int) -> None:
    train(encoded, tmp_path / "offload", f"engine.zero={zero}", "engine.offload=true", "optimizer.eps=0.001")
    train(encoded, tmp_path / "plain", f"engine.zero={zero}", "optimizer.eps=0.001")
    found, wanted = figures(tmp_path / "offload"), figures(tmp_path / "plain")
    assert [line[1] for line in found] == pytest.approx([line[1] for line in wanted], rel=2e-6)
