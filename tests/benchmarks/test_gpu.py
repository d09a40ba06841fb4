"""The benchmark of a GPU, tried on a CPU: the parts run, report what is asked of them and agree on the losses."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.runs import ROOT, environment


def run(*words: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "train", "--tiny", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_training_is_measured() -> None:
    found = run("--no-compile", "--rows", "1")
    eager = found["eager"]
    assert eager["backend"] == "gloo" and eager["zero"] == 2 and eager["recomputed"] == 1
    assert eager["positions_s"] * eager["step_s"] == pytest.approx(255, abs=8)
    assert len(eager["loss"]) == 2 and 0 < eager["loss"][0] < 10
    assert 0 < found["attention"]["attention_bf16"] < 0.02 and 0 < found["attention"]["attention_bf16_gradients"] < 0.02


@pytest.mark.slow
def test_compiled_layers_are_measured_beside_the_others() -> None:
    found = run("--rows", "1", "--compiler", "aot_eager", "--patience", "390", "engine.dtype=float32")
    assert found["compiled"]["loss"] == pytest.approx(found["eager"]["loss"], rel=1e-5)
