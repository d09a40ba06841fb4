"""`make demo`: the main job on the sample recordings, submitted to a local Ray as one would to a cluster.

Starts a Ray of its own on loopback and ends it: another one on this machine may have another Python, or be busy.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from voxmill.core.errors import command
from voxmill.core.local_ray import environment, free_port, local_ray

ROOT = Path(__file__).resolve().parent.parent.parent
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
    port = free_port()
    print("starting a local Ray ...", flush=True)
    with local_ray(port):
        ray = str(Path(sys.executable).parent / "ray")
        job = ["python", "pipelines/annotate.py", str(ROOT / "samples" / "manifest.jsonl"), str(out)]
        address = f"http://127.0.0.1:{port}"
        status = submit([ray, "job", "submit", f"--address={address}", f"--working-dir={ROOT}", "--", *job])
    if status == 0:
        print(f"\nthe report: {out / 'report.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
