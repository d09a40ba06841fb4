"""benchmarks/planner_rates.py gives the figures that the package's table names it for."""

import json
import subprocess
import sys
from pathlib import Path

from cluster.planner.rates import Sizes, StageSeconds

ROOT = Path(__file__).resolve().parents[2]


def test_every_figure_is_one_of_the_planner() -> None:
    command = [sys.executable, "benchmarks/planner_rates.py", "--rate", "16000", "--preset", "tiny", "--batches", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("device") == "cpu" and all(value > 0 for value in found.values())
    assert set(found) <= {*StageSeconds.model_fields, *Sizes.model_fields}
    assert 0.3 < found["flac_sample"] < 2.0
