"""Whether a machine runs what the driver runs, sees the folder that the driver writes to, and can write there itself.

A folder that is not mounted on a node looks like an empty one there: what that node writes is lost, and nothing fails.
Neither does it where a node has another version of the code, which may give other bytes.
"""

import contextlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxmill.core.errors import JobError
from voxmill.core.files import make_parents
from voxmill.core.local_ray import node_names, on_node, this_node
from voxmill.core.machine.processes import ProcessId
from voxmill.core.machine.software import software
from voxmill.core.storage import as_failure, file_names, releasing
from voxmill.data.records import from_json_text, to_json_text

# A network file system may show a new file some seconds late.
PATIENCE_SECONDS = 10.0
# Far longer than a busy machine takes to start a process; a hard mount whose server is gone never answers.
ANSWER_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A file that the driver has written below OUT, for workers to read; `what` names the folder in messages.

    software: of the driver.
    """

    path: Path
    content: str
    what: str
    software: dict[str, str] = field(default_factory=software)

    def check(self, node: str) -> None:
        """Compares versions, reads the driver's file, then writes one and reads it back.

        Args:
            node: names this machine in messages.

        Raises:
            JobError: this machine runs something else, does not see what the driver sees, or cannot write there; one
                line.
        """
        for name, here in software().items():
            there = self.software.get(name, "none")
            if here != there:
                raise JobError(f"node {node} has {name} {here}, the driver {there}; install the same on both")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read(self.path, node) != self.content:
            if time.monotonic() > deadline:
                raise JobError(f"{self.what} is not shared with node {node}; mount it there as on the head")
            time.sleep(0.5)
        own = self.path.with_name(f"{self.path.name}-{uuid.uuid4().hex[:8]}")
        try:
            own.write_text(self.content)
        except Exception as error:
            raise JobError(f"{self.what} cannot be written on node {node} ({_reason(error)})") from None
        same = self._read(own, node) == self.content
        own.unlink(missing_ok=True)
        if not same:
            raise JobError(f"{self.what} gives back something else than node {node} wrote there")

    def _read(self, path: Path, node: str) -> str:
        """What a file says; "" where there is none."""
        try:
            return path.read_text()
        except FileNotFoundError:
            return ""
        except Exception as error:
            raise JobError(f"{self.what} cannot be read on node {node} ({_reason(error)})") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Driver:
    """What the driver's file says: whose it is."""

    nonce: str
    process: ProcessId


@contextmanager
def probe(out: Path) -> Iterator[Probe]:
    """The driver's file below OUT/work/probes, for as long as the block lasts; files of dead drivers go."""
    folder, nonce = out / "work" / "probes", uuid.uuid4().hex
    for name in file_names(folder):
        _remove_of_dead(folder / name)
    path, content = folder / nonce, to_json_text(_Driver(nonce=nonce, process=ProcessId.own()))
    make_parents(path)
    path.write_text(content)
    failed = True
    try:
        yield Probe(path=path, content=content, what=f"OUT ({out})")
        failed = False
    finally:
        with releasing(after_failure=failed):
            path.unlink(missing_ok=True)


def check_nodes(out: Path) -> None:
    """Checks every other node that is there, before any work is done; those that come later, as they take units.

    Raises:
        JobError: as `Probe.check`, of the first node that fails.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    names = node_names()
    names.pop(this_node()[0], None)
    if not names:
        return
    with probe(out) as shared:

        def check() -> str | None:
            try:
                shared.check(this_node()[1])
            except JobError as error:
                return str(error)
            return None

        remote: Any = ray.remote
        tasks = {node: remote(num_cpus=0, scheduling_strategy=on_node(node))(check).remote() for node in names}
        for node, task in tasks.items():
            try:
                failure = ray.get(task, timeout=ANSWER_SECONDS)
            except GetTimeoutError:
                failure = f"node {names[node]} did not look at {shared.what} within {ANSWER_SECONDS:.0f} s"
            except RayError as error:
                if node not in node_names():
                    # It has just gone.
                    continue
                why = str(error).strip().splitlines()[-1]
                failure = f"node {names[node]} cannot run this voxmill ({why}); install the same as the driver's"
            if failure is not None:
                raise JobError(failure)


def _remove_of_dead(path: Path) -> None:
    """Removes the file of a driver that was killed, or of one of its workers."""
    with contextlib.suppress(ValueError, FileNotFoundError):
        if from_json_text(_Driver, path.read_text()).process.is_dead():
            path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Why storage does not take or give a file, in words.

    Raises:
        Exception: `error`, where it is about something else.
    """
    failure = as_failure(error)
    return (isinstance(failure, OSError) and failure.strerror) or str(failure) or type(failure).__name__
