"""`make demo`: the main job on the sample recordings, submitted to a local Ray as one would to a cluster.

Starts a Ray of its own on loopback where none answers, and ends what it started.
"""

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from voxmill.core.errors import command
from voxmill.core.local_ray import answers, environment, local_ray

ROOT = Path(__file__).resolve().parent.parent.parent
PORT = 8265
DASHBOARD = f"http://127.0.0.1:{PORT}"
# Each waits up to half a minute inside Ray.
TRIES = 6


def submit(command: list[str]) -> int:
    """Submits a job, shows its output as it comes, and returns its exit status.

    On a busy machine Ray's dashboard answers before it can take jobs; the same command is then given again.
    """
    for _ in range(TRIES):
        # Ray's lines on the upload are only worth reading where it fails.
        with tempfile.TemporaryFile("w+") as errors:
            status = subprocess.run(command, env=environment(), cwd=ROOT, stderr=errors).returncode
            errors.seek(0)
            text = errors.read()
        if status == 0 or "No available agent" not in text:
            break
        print("the local Ray is not ready to take jobs yet; trying again ...", flush=True)
    if status:
        print(text, file=sys.stderr)
    return status


@command("voxmill demo")
def main() -> int:
    """Runs the demo and returns the job's exit status."""
    out = ROOT / "demo-out"
    with ExitStack() as stack:
        if not answers(DASHBOARD):
            print("starting a local Ray ...", flush=True)
            stack.enter_context(local_ray(PORT))
        ray = str(Path(sys.executable).parent / "ray")
        job = ["python", "pipelines/annotate.py", str(ROOT / "samples" / "manifest.jsonl"), str(out)]
        status = submit([ray, "job", "submit", f"--address={DASHBOARD}", f"--working-dir={ROOT}", "--", *job])
    if status == 0:
        print(f"\nthe report: {out / 'report.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
