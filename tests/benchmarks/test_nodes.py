"""The benchmark of three nodes, tiny: a lost node costs nothing; one that does not share OUT is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_nothing_is_lost_with_a_node_that_is_killed_or_lacks_out() -> None:
    can_mount = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    if os.geteuid() or not can_mount:
        pytest.skip("mount namespaces are for root")
    command = [sys.executable, str(ROOT / "benchmarks" / "nodes.py"), "--units", "8", "--cases", "killed", "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["lost"], found["repeated"], found["same_bytes"]) == (0, 0, True)
    assert found["good"] == {"alone": True, "killed": True, "out": True}
