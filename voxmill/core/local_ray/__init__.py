"""Ray for jobs: joining a cluster, its machines, and a private Ray on this one; `tasks` maps functions over it.

The private one listens on loopback with token authentication; demo and benchmarks use it.
"""

import atexit
import contextlib
import functools
import io
import logging
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
from typing import TYPE_CHECKING, Any

from voxmill.core.errors import JobError

if TYPE_CHECKING:
    from ray.data import DataContext

_CORE_LINE = r"^\[[0-9-]+ [0-9:,]+ [IWE] [0-9]+ [0-9]+\] [a-z_]+\.cc:[0-9]+: "
AGENT_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


def environment() -> dict[str, str]:
    """Environment of every Ray process started here: authentication is on, as the control store listens everywhere."""
    token = Path.home() / ".cache" / "voxmill" / "ray-token"
    if not token.exists():
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    required = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": path, "PYTHONWARNINGS": "ignore"}
    # Nobody collects the metrics of a Ray on one machine, and every process would report some every few seconds.
    defaults = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    return defaults | dict(os.environ) | required


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
        num_cpus: CPUs that Ray may use; None: all of them.

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
    # Another Ray on this machine may have the usual ports; the agent that takes jobs would then be silently missing.
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


def join_ray(
    *, log_to_driver: bool = False, num_cpus: int | None = None, env_vars: dict[str, str] | None = None
) -> None:
    """Connects this process to the cluster that RAY_ADDRESS names; without one, to a Ray that ends with this process.

    Ray's own warnings stay off the screen.

    Args:
        log_to_driver: whether what workers print is printed here, too.
        num_cpus: CPUs of a Ray that is started here; None: all that this process may use.
        env_vars: added to the environment of workers.
    """
    import ray

    _hide_core_lines()
    if not log_to_driver:
        # What raylets report of workers that died is printed even then, among what a command says on standard output.
        # This switch of Ray's debugger is the only one; the lines stay in Ray's logs, and jobs tell what they lost.
        ray._private.worker._worker_logs_enabled = False
    runtime_env = {"env_vars": env_vars} if env_vars else None
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", log_to_driver=log_to_driver, runtime_env=runtime_env, logging_level=logging.ERROR)
        return
    before = sys.executable
    folder = Path(tempfile.mkdtemp(prefix="voxmill-python-"))
    # Processes of that Ray start others for as long as it lives.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sys.executable = _python(folder)
    try:
        ray.init(
            # Without an address Ray joins whatever other Ray was started last on this machine.
            address="local",
            log_to_driver=log_to_driver,
            num_cpus=num_cpus or _bound_cpus(),
            runtime_env=runtime_env,
            logging_level=logging.ERROR,
            **_bound_memory(),
        )
    finally:
        sys.executable = before


@functools.cache
def _hide_core_lines() -> None:
    """Keeps off the screen what Ray's core has to say to a driver: it writes to file descriptor 2, and no setting of
    `ray.init` reaches that. Lines of others pass. A process of its own reads them, which no lock of this one stops.
    """
    grep = shutil.which("grep")
    if grep is None:
        return
    screen = os.dup(2)
    reader, writer = os.pipe()
    subprocess.Popen(
        [grep, "--line-buffered", "-a", "-v", "-E", _CORE_LINE], stdin=reader, stdout=screen, stderr=screen
    )
    os.close(reader)
    sys.stderr.flush()
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr.fileno() == 2:
        # What Python prints needs no filter, and stays on a terminal where it is on one.
        sys.stderr = open(os.dup(screen), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)  # noqa: SIM115
    os.dup2(writer, 2)
    os.close(writer)
    atexit.register(os.dup2, screen, 2)


def _bound_cpus() -> int | None:
    """CPUs that this process is bound to, as SLURM binds a job's; None: to none, Ray counts by itself.

    Ray knows a container's quota, but not the binding, and would start a worker for each CPU of a node.
    """
    bound = len(os.sched_getaffinity(0))
    return bound if bound < (os.cpu_count() or bound) else None


def _bound_memory() -> dict[str, Any]:
    """Ray's shares of the memory that this process is bound to, as SLURM binds a job's; none where it is bound to none.

    Ray knows a container's limit, but not that of a group below it: its object store would be a third of the node's
    memory, and its pages would end the job.
    """
    limit = memory_limit()
    if limit is None:
        return {}
    shares: dict[str, Any] = {"_memory": int(0.6 * limit)}
    store = int(0.3 * limit)
    # Where /dev/shm has less, Ray takes what it has.
    shared = os.statvfs("/dev/shm")
    if shared.f_bavail * shared.f_frsize > 1.1 * store:
        shares["object_store_memory"] = store
    return shares


def memory_limit() -> int | None:
    """Bytes that the control group of this process, or one above it, may use; None: no less than the machine has."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [total]
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii", errors="replace").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        own = Path(group.lstrip("/"))
        for folder in (own, *own.parents):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((root / folder / name).read_text()))
    return min(limits) if min(limits) < total else None


@contextmanager
def data_settings() -> "Iterator[DataContext]":
    """Settings of the Ray Data graphs that are built and run inside, to be changed there; those outside stay.

    They begin without bars and advice of Ray Data's own, since the job shows its own progress. A process runs several
    graphs one after another, and what one of them may ignore, such as failed blocks, another must not lose.
    """
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []  # advice about memory of actors that this job sizes itself
    with DataContext.current(context):
        yield context


def cluster_cpus() -> int:
    """CPUs of the cluster that this process has joined."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("CPU", 1))


def this_node() -> tuple[str, str]:
    """Ray's id of this machine ("" outside of Ray), and how messages name the machine."""
    import ray

    if not ray.is_initialized():
        return "", socket.gethostname()
    node_id: str = ray.get_runtime_context().get_node_id()
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return node_id, f"{address} ({node_id[:8]})"


def node_names() -> dict[str, str]:
    """How messages name the machines that are there now, by Ray's ids."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})" for node in nodes if node["Alive"]}


def alive_nodes() -> set[str]:
    """Ray's ids of the machines that are there now."""
    return set(node_names())


def on_node(node_id: str) -> Any:
    """Ray's scheduling strategy for what must run on one machine."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


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
