"""`make demo`: the main job on the sample recordings, submitted to a local Ray as one would to a cluster.

Starts a Ray of its own on loopback where none answers, and ends what it started.
"""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from voxmill.errors import JobError, UserError
from voxmill.local_ray import answers, environment, local_ray

ROOT = Path(__file__).resolve().parent.parent
PORT = 8265
DASHBOARD = f"http://127.0.0.1:{PORT}"


def main() -> int:
    """Runs the demo and returns the job's exit status."""
    out = ROOT / "demo-out"
    with ExitStack() as stack:
        if not answers(DASHBOARD):
            print("starting a local Ray ...", flush=True)
            stack.enter_context(local_ray(PORT))
        ray = str(Path(sys.executable).parent / "ray")
        job = ["python", "pipelines/annotate.py", str(ROOT / "samples" / "manifest.jsonl"), str(out)]
        command = [ray, "job", "submit", f"--address={DASHBOARD}", f"--working-dir={ROOT}", "--", *job]
        status = subprocess.run(command, env=environment(), cwd=ROOT).returncode
    if status == 0:
        print(f"\nthe report: {out / 'report.html'}")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"voxmill demo: {error}", file=sys.stderr)
        sys.exit(2)
    except JobError as error:
        print(f"voxmill demo: {error}", file=sys.stderr)
        sys.exit(1)
