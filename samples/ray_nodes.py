"""A Ray of several nodes on this machine: `ray start` as processes of their own, which can be killed one by one."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from voxmill.core.errors import JobError
from voxmill.core.local_ray import AGENT_PORTS, answers, environment, free_port

START_SECONDS = 120.0
TRIES = 3


class Nodes:
    """A head without CPUs, and the nodes that are added to it.

    Args:
        folder: its path must be short, for sockets lie below it. Each node has a folder of its own there, as on a disk
            of its own: nodes that share one overwrite each other's copy of a submitted job's code.
        store_bytes: of each node's object store; None: as much as Ray takes.
        dashboard: whether jobs can be submitted, at `dashboard`.
    """

    def __init__(self, folder: Path, *, store_bytes: int | None = None, dashboard: bool = False) -> None:
        self._folder, self._store, port = folder, store_bytes, free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address = f"127.0.0.1:{port}"
        self.dashboard = ""
        words = ["--head", f"--port={port}", "--num-cpus=0", "--no-monitor"]
        words.append(f"--include-dashboard={str(dashboard).lower()}")
        if dashboard:
            dashboard_port = free_port()
            words += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
            self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        self.head = self._start(words)
        deadline = time.monotonic() + START_SECONDS
        while dashboard and not answers(self.dashboard):
            if time.monotonic() > deadline:
                self.end()
                raise JobError("Ray's dashboard does not answer")
            time.sleep(0.25)

    def add(self, *, cpus: int = 1, gpus: int = 0, mount: str = "") -> subprocess.Popen[bytes]:
        """A node; `mount` is a line of shell that it runs before it starts, in a mount namespace of its own."""
        return self._start([f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"], mount)

    def _start(self, words: list[str], mount: str = "") -> subprocess.Popen[bytes]:
        """Ray gives a node half a minute to start, which is too little where every core has ten processes."""
        for _ in range(TRIES):
            process, log = self._try_to_start(words, mount)
            deadline = time.monotonic() + START_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                if "Ray runtime started" in log.read_text(errors="replace"):
                    return process
                time.sleep(0.25)
            kill(process)
        raise JobError(f"a node did not start: {log.read_text(errors='replace')[-800:]}")

    def _try_to_start(self, words: list[str], mount: str) -> tuple[subprocess.Popen[bytes], Path]:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1", *words]
        own = self._folder / str(len(self._processes))
        ray.append(f"--temp-dir={own}")
        # The usual ports are those of one node a machine.
        ray += [f"--{name}={free_port()}" for name in AGENT_PORTS]
        if self._store is not None:
            ray += [f"--object-store-memory={self._store}"]
        if mount:
            ray = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *ray]
        log = own.with_name(f"{own.name}.log")
        with open(log, "wb") as output:
            process = subprocess.Popen(ray, env=environment(), stdout=output, stderr=output, start_new_session=True)
        self._processes.append(process)
        return process, log

    def end(self) -> None:
        """Kills every node."""
        for process in reversed(self._processes):
            kill(process)


def empty(folder: Path) -> str:
    """The line of shell that makes a folder an empty one."""
    return f"mount -t tmpfs -o size=50m tmpfs {shlex.quote(str(folder))}"


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a node with all that it started, as a machine that is taken away."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def ray_nodes(*, store_bytes: int | None = None, dashboard: bool = False) -> Iterator[Nodes]:
    """A head without CPUs, which ends with all of its nodes."""
    with tempfile.TemporaryDirectory(prefix="vm-", ignore_cleanup_errors=True) as folder:
        made = Nodes(Path(folder), store_bytes=store_bytes, dashboard=dashboard)
        try:
            yield made
        finally:
            made.end()
