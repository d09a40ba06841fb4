"""Starting the planning process of a node, and asking it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from pathlib import Path

from training.curriculum.feed import planner
from training.curriculum.feed.planner import Ask, Failure, Join, PlanInputs, Reply, Restart, Stale, StepPlan, in_files
from training.curriculum.row_plan import SampleStreamState
from training.run.world import World
from voxmill.core.errors import JobError, UserError

END_SECONDS = 5.0
"""How long a process that is to end may take."""
LONGEST_ADDRESS = 100
"""Bytes of the path of a Unix socket; the systems' limits are 104 and 108."""
START = f"from {planner.__name__} import main"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Sent to all processes of a job; what they mean is decided by the ranks alone."""


class Unusable(Exception):
    """No sample of a stream can be used. `examples`: a clip for each reason."""

    def __init__(self, examples: dict[str, int]) -> None:
        super().__init__(examples)
        self.examples = examples


class PlanningProcess:
    """The process of this rank's node, seen from this rank; the first rank of each node starts it. Collective.

    `leads`: whether this rank has started it, which is so on the first rank of all.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        nodes = world.gather(_node())
        self._mates = [rank for rank, node in enumerate(nodes) if node == nodes[world.rank]]
        self.leads = self._mates[0] == world.rank
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._generation = 0

    def start(self, inputs: PlanInputs | None) -> SampleStreamState:
        """Starts the process, and joins it; returns the state before the first step. Collective.

        Args:
            inputs: on a rank that leads.
        """
        folder: tempfile.TemporaryDirectory[str] | None = None
        address, reply = "", None
        if inputs is not None:
            folder = _short_folder()
            address = str(Path(folder.name) / "planner")
            self._process = _started(address)
            reply = self._join(address, Join(self.world.rank, in_files(inputs)))
        addresses = self.world.gather(address)
        if reply is None:
            reply = self._join(addresses[self._mates[0]], Join(self.world.rank))
        self.world.barrier()
        if folder is not None:
            # All are connected: nothing is left behind, however the run ends.
            folder.cleanup()
        assert isinstance(reply, SampleStreamState)
        return reply

    @property
    def here(self) -> int:
        """Ranks of this node."""
        return len(self._mates)

    def restart(self, state: SampleStreamState, clips: tuple[int, ...] = ()) -> SampleStreamState:
        """Plans from `state` on without `clips`; returns the state without them. All ranks ask for the same.

        Raises:
            UserError: the state is not that of the data and the recipe. JobError: the process has ended.
        """
        self._generation += 1
        reply = self._asked(Restart(self._generation, state, clips))
        assert isinstance(reply, SampleStreamState)
        return reply

    def rows(self, step: int) -> StepPlan | None:
        """This rank's rows of a step; None where another rank has restarted it meanwhile.

        Raises:
            Unusable: no sample of a stream can be used. JobError: the process has ended.
        """
        reply = self._asked(Ask(self._generation, step))
        assert isinstance(reply, StepPlan | Stale)
        return None if isinstance(reply, Stale) else reply

    def _join(self, address: str, message: Join) -> Reply:
        try:
            self._connection = Client(address, family="AF_UNIX")
        except OSError as error:
            raise JobError(f"the planning process of this node cannot be reached ({error})") from None
        return self._asked(message)

    def _asked(self, message: Join | Restart | Ask) -> Reply:
        assert self._connection is not None
        try:
            self._connection.send(message)
            reply: Reply = self._connection.recv()
        except (EOFError, OSError):
            raise JobError(f"the planning process of this node has ended{self._status()}") from None
        if isinstance(reply, Failure):
            if reply.examples is not None:
                raise Unusable(reply.examples)
            raise UserError(reply.message) if reply.is_user_error else JobError(reply.message)
        return reply

    def _status(self) -> str:
        if self._process is None:
            return "; its error is in the output of the node's first rank"
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return ""
        return f" by {signal.Signals(-status).name}" if status < 0 else f" with status {status}; its error is above"

    def close(self) -> None:
        """Leaves it, and ends it where this rank started it."""
        if self._connection is not None:
            self._connection.close()
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
            return
        self._process.kill()
        self._process.wait()


def _node() -> tuple[str, int, int]:
    """The same for ranks that can reach each other by a file's name: a machine, and a temporary folder on it."""
    status = os.stat(tempfile.gettempdir())
    return socket.gethostname(), status.st_dev, status.st_ino


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder whose name leaves room for a socket's; only its owner may enter."""
    for parent in (None, "/tmp"):
        folder = tempfile.TemporaryDirectory(prefix="voxmill-feed-", dir=parent)
        if len(os.fsencode(folder.name)) < LONGEST_ADDRESS - len("/planner"):
            return folder
        folder.cleanup()
    raise JobError(f"{tempfile.gettempdir()}: too long a name for a socket in it; set TMPDIR to a shorter one")


def _started(address: str) -> "subprocess.Popen[bytes]":
    """The process, which serves a socket that listens already."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(1024)
        # A session of its own keeps a terminal's signals away, and what is blocked here is blocked in the child: from
        # its first instruction it takes none of them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return subprocess.Popen(
                # -P: nothing of the current folder hides a module. Not -m: classes of __main__ are others.
                [sys.executable, "-P", "-c", f"{START}; main({listener.fileno()})"],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
                | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
