"""`make demo`: the main job on the sample recordings, submitted to a local Ray as one would to a cluster.

Starts a Ray of its own on loopback where none answers, and ends what it started.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from voxmill.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = "http://127.0.0.1:8265"


def _environment() -> dict[str, str]:
    """Ray with its token authentication on: its control store listens on every interface."""
    token = Path.home() / ".cache" / "voxmill" / "ray-token"
    if not token.exists():
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": path, "PYTHONWARNINGS": "ignore"}
    return {"RAY_USAGE_STATS_ENABLED": "0"} | dict(os.environ) | ours


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"{DASHBOARD}/api/version", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # Ray's sockets live under its temporary folder and a socket's path may have 107 bytes: not below this checkout.
    folder = tempfile.mkdtemp(prefix="voxmill-ray-")
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command += ["--include-dashboard=true", f"--temp-dir={folder}"]
    with open(Path(folder) / "start.log", "wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    for _ in range(120):
        if head.poll() is not None:
            tail = (Path(folder) / "start.log").read_text(errors="replace").strip().splitlines()[-3:]
            raise UserError(f"a local Ray could not be started: {' '.join(tail)}")
        if _answers():
            return head
        time.sleep(0.5)
    head.terminate()
    raise UserError(f"a local Ray did not answer within a minute; see {folder}/start.log")


def main() -> int:
    """Runs the demo and returns the job's exit status."""
    environment = _environment()
    out = ROOT / "demo-out"
    head = None
    if not _answers():
        print("starting a local Ray ...", flush=True)
        head = _start(environment)
    try:
        ray = str(Path(sys.executable).parent / "ray")
        job = ["python", "pipelines/annotate.py", str(ROOT / "samples" / "manifest.jsonl"), str(out)]
        command = [ray, "job", "submit", f"--address={DASHBOARD}", f"--working-dir={ROOT}", "--", *job]
        status = subprocess.run(command, env=environment, cwd=ROOT).returncode
    finally:
        if head is not None:
            head.terminate()
            head.wait(timeout=60)
    if status == 0:
        print(f"\nthe report: {out / 'report.html'}")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"voxmill demo: {error}", file=sys.stderr)
        sys.exit(2)
