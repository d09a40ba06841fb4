"""Joining Ray, and a Ray of our own on this machine, on loopback and with token authentication, for demo and benchmarks."""

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxmill.core.errors import JobError

AGENT_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


def environment() -> dict[str, str]:
    """The environment of every Ray command of ours: authentication is on, as the control store listens everywhere."""
    token = Path.home() / ".cache" / "voxmill" / "ray-token"
    if not token.exists():
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": path, "PYTHONWARNINGS": "ignore"}
    # Nobody gathers the metrics of a Ray on one machine, and every process would report some every few seconds.
    unless_told = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    return unless_told | dict(os.environ) | ours


def answers(dashboard: str) -> bool:
    """Whether a Ray dashboard answers at this address."""
    try:
        with urllib.request.urlopen(f"{dashboard}/api/version", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextmanager
def local_ray(dashboard_port: int | None = None, num_cpus: int | None = None) -> Iterator[str]:
    """Starts a head on loopback, yields its address (`host:port`) and ends it.

    Args:
        dashboard_port: where the dashboard, through which jobs are submitted, answers; None: no dashboard.
        num_cpus: what Ray may believe in; None: all of them.

    Raises:
        JobError: it does not start within a minute.
    """
    # Ray's sockets live under its temporary folder and a socket's path may have 107 bytes: not below this checkout.
    folder = Path(tempfile.mkdtemp(prefix="voxmill-ray-"))
    port = free_port()
    command = [
        _python(folder),
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
    ]
    command += [f"--port={port}", f"--temp-dir={folder}", f"--include-dashboard={dashboard_port is not None}"]
    # The autoscaler's process: one machine does not grow.
    command += ["--no-monitor"]
    # Another Ray on this machine has the usual ports; without one of its own the agent that takes jobs is silently gone.
    command += [f"--{name}={free_port()}" for name in AGENT_PORTS]
    if dashboard_port is not None:
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    if num_cpus is not None:
        command += [f"--num-cpus={num_cpus}"]
    with open(folder / "start.log", "wb") as log:
        head = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(120):
            if head.poll() is not None:
                tail = (folder / "start.log").read_text(errors="replace").strip().splitlines()[-3:]
                raise JobError(f"a local Ray could not be started: {' '.join(tail)}")
            if answers(f"http://127.0.0.1:{dashboard_port}") if dashboard_port else _listens(folder / "start.log"):
                break
            time.sleep(0.5)
        else:
            raise JobError(f"a local Ray did not answer within a minute; see {folder}/start.log")
        yield f"127.0.0.1:{port}"
    finally:
        _end(head)
    shutil.rmtree(folder, ignore_errors=True)


def join_ray(*, log_to_driver: bool = False) -> None:
    """Connects this process to the cluster that RAY_ADDRESS names; without one, to a Ray that ends with this process.

    Args:
        log_to_driver: whether what workers print is printed here, too.
    """
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", log_to_driver=log_to_driver)
        return
    before = sys.executable
    folder = Path(tempfile.mkdtemp(prefix="voxmill-python-"))
    # Processes of that Ray start others for as long as it lives.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sys.executable = _python(folder)
    try:
        ray.init(log_to_driver=log_to_driver)
    finally:
        sys.executable = before


def _python(folder: Path) -> str:
    """This Python's executable, through a link below `folder` where its path has spaces.

    Ray starts processes through a shell and does not quote the executable's path.
    """
    python = Path(sys.executable)
    if " " not in str(python):
        return str(python)
    (folder / "venv").symlink_to(sys.prefix)
    return str(folder / "venv" / "bin" / python.name)


def _end(head: subprocess.Popen[bytes]) -> None:
    """Ends a head with all that it started: asked politely it would wait half a minute for its workers."""
    head.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(timeout=3)
    # The session outlives its leader where a process of it does.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    head.wait()


def _listens(log: Path) -> bool:
    return "Ray runtime started" in log.read_text(errors="replace")


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
