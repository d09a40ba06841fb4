"""The main job as a process of its own, as benchmarks and tests run it on a Ray that runs already."""

import subprocess
import sys
from pathlib import Path

from voxmill.core.errors import JobError
from voxmill.core.local_ray import environment

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 3600
"""Seconds that a job may take."""


def start_job(source: Path, out: Path, address: str, *settings: str) -> subprocess.Popen[bytes]:
    """Starts `annotate source out settings...` on the Ray at `address`; its output goes to `out` with `.log`."""
    command = [sys.executable, str(ROOT / "pipelines" / "annotate.py"), str(source), str(out), *settings]
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, env=environment() | {"RAY_ADDRESS": address}, stdout=log, stderr=log)


def finish_job(job: subprocess.Popen[bytes], out: Path) -> None:
    """Waits for a job.

    Raises:
        JobError: it failed; the message ends with the end of its log.
    """
    if job.wait(timeout=TIMEOUT) != 0:
        raise JobError(f"the job ended with status {job.returncode}: {out.with_suffix('.log').read_text()[-2000:]}")


def run_job(source: Path, out: Path, address: str, *settings: str) -> None:
    """Runs the job to its end; errors as in `finish_job`."""
    finish_job(start_job(source, out, address, *settings), out)
