"""Runs of the training script as a user starts them, and the files that they leave."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from samples.fabricate import CHECKPOINT

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8


def arguments(encoded: Path, out: Path, *overrides: str, recipe: str = "tiny_stage2") -> list[str]:
    """Arguments of the training script for a run of `STEPS` steps that saves every second one."""
    return [
        recipe,
        f"init={CHECKPOINT}",
        f"datasets.main.path={encoded}",
        f"run.out={out}",
        f"steps={STEPS}",
        "optimizer.warmup_steps=1",
        "run.save_every=2",
        "rows=4",
        *overrides,
    ]


def command(encoded: Path, out: Path, *overrides: str, world: int = 1, recipe: str = "tiny_stage2") -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    script = str(ROOT / "training" / "train.py")
    own = arguments(encoded, out, "run.tracking_uri=none", *overrides, recipe=recipe)
    return [sys.executable, *launcher, script, *own]


# A run that is started from this process would take them for its own launcher's.
WORLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def environment() -> dict[str, str]:
    """Of a run that is started from a test: one thread, this checkout, no world."""
    outside = {name: value for name, value in os.environ.items() if name not in WORLD}
    return outside | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def train(encoded: Path, out: Path, *overrides: str, world: int = 1, recipe: str = "tiny_stage2") -> str:
    """A run that must succeed; returns its output."""
    arguments = command(encoded, out, *overrides, world=world, recipe=recipe)
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def metrics(out: Path) -> list[dict[str, Any]]:
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def stop(
    encoded: Path,
    out: Path,
    *overrides: str,
    after: int,
    how: signal.Signals,
    world: int = 1,
    recipe: str = "tiny_stage2",
) -> int:
    """Starts a run, sends the signal to its first process (or all, by their group) after a step, returns the status."""
    process = subprocess.Popen(
        command(encoded, out, *overrides, world=world, recipe=recipe),
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while len(metrics(out)) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, how)
    return process.wait(timeout=120)


def figures(out: Path) -> list[tuple[int, float, float, int]]:
    return [(line["step"], line["loss"], line["grad_norm"], line["positions"]) for line in metrics(out)]


T = TypeVar("T")


def through_json(state: T) -> T:
    """A state as a checkpoint keeps it: written as JSON and read again."""
    adapter = TypeAdapter(type(state))
    return adapter.validate_json(adapter.dump_json(state))
