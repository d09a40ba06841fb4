"""Jobs that take turns at a lease."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
JOB = """
import sys, time
from pathlib import Path
from pipelines.units.lease import in_turn
folder = Path(sys.argv[1])
with in_turn(folder / "turn.json", "the folder"):
    with open(folder / "log", "a") as log:
        print("in", sys.argv[2], file=log, flush=True)
        time.sleep(0.3)
        print("out", sys.argv[2], file=log, flush=True)
"""


def test_each_job_has_its_turn_alone(tmp_path: Path) -> None:
    jobs = [subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path), str(n)], cwd=ROOT) for n in range(3)]
    assert [job.wait(timeout=60) for job in jobs] == [0, 0, 0]
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 6
    assert all(lines[n].split()[1] == lines[n + 1].split()[1] for n in range(0, 6, 2))
    assert not (tmp_path / "turn.json").exists()
