"""The main job as a process of its own, as benchmarks and tests run it on a Ray that runs already."""

import subprocess
import sys
from pathlib import Path

from voxmill.core.errors import JobError
from voxmill.core.local_ray import environment

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 3600
"""Seconds that a job may take."""


def start_job(
    source: Path, out: Path, address: str, *settings: str, log: Path | None = None, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Starts `annotate source out settings...` on the Ray at `address`.

    Args:
        log: gets its output; None: `out` with `.log`.
        folder: its current folder; None: this process's.
    """
    command = [sys.executable, str(ROOT / "pipelines" / "annotate.py"), str(source), str(out), *settings]
    log = log or out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        own = environment() | {"RAY_ADDRESS": address}
        return subprocess.Popen(command, env=own, stdout=output, stderr=output, cwd=folder)


def finish_job(job: subprocess.Popen[bytes], out: Path, *, log: Path | None = None) -> None:
    """Waits for a job; `log` as in `start_job`.

    Raises:
        JobError: it failed; the message ends with the end of its log.
    """
    if job.wait(timeout=TIMEOUT) != 0:
        text = (log or out.with_suffix(".log")).read_text()
        raise JobError(f"the job ended with status {job.returncode}: {text[-2000:]}")


def run_job(source: Path, out: Path, address: str, *settings: str) -> None:
    """Runs the job to its end; errors as in `finish_job`."""
    finish_job(start_job(source, out, address, *settings), out)
