import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_its_memory_does_not_grow_with_the_clips(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "report.py"), "--folder", str(tmp_path)]
    done = subprocess.run(
        [*command, "--clips", "500", "20000", "--bucket", "500"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    small, large = found["sizes"]
    assert (small["clips"], large["clips"]) == (500, 20_000)
    assert large["peak_mb"] < small["peak_mb"] + 100
    assert 1_000 < found["bucket_summary_bytes"] < 50_000
