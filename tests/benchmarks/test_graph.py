"""The benchmark of the graph, tiny: four pretended GPUs beside one CPU, which is where pools could wait for ever."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_graph_ends_with_more_gpus_than_cpus() -> None:
    arguments = ["--cpus", "1", "--gpus", "4", "--seconds", "6", "--units", "2"]
    command = [sys.executable, str(ROOT / "benchmarks" / "graph.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["clusters"], found["hung"], found["lost"]) == (1, 0, 0)
