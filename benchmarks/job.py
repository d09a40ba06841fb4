"""The main job as a process of its own, as a benchmark runs it on a Ray that is already there."""

import subprocess
import sys
from pathlib import Path

from voxmill.core.local_ray import environment

ROOT = Path(__file__).resolve().parent.parent


def start_job(source: Path, out: Path, address: str, *settings: str) -> subprocess.Popen[bytes]:
    """Starts `annotate source out settings...`; what it says goes to a file beside OUT."""
    command = [sys.executable, str(ROOT / "pipelines" / "annotate.py"), str(source), str(out), *settings]
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, env=environment() | {"RAY_ADDRESS": address}, stdout=log, stderr=log)


def finish_job(job: subprocess.Popen[bytes], out: Path) -> None:
    """Waits for a job; a failed one ends the benchmark with its last words."""
    if job.wait(timeout=3600) != 0:
        sys.exit(f"the job failed with {job.returncode}: {out.with_suffix('.log').read_text()[-2000:]}")


def run_job(source: Path, out: Path, address: str, *settings: str) -> None:
    """Runs the job to its end."""
    finish_job(start_job(source, out, address, *settings), out)
