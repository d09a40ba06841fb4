"""Whether a machine sees the folder that the driver writes to, and can write there itself.

A folder that is not mounted on a node looks like an empty one there: what that node writes is lost, and nothing fails.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from voxmill.core.errors import JobError
from voxmill.core.files import make_parents

# A network file system may show a new file some seconds late.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A file that the driver has written below OUT, for workers to read; `what` names the folder in messages."""

    path: Path
    content: str
    what: str

    def check(self, node: str) -> None:
        """Reads the driver's file, then writes one and reads it back.

        Args:
            node: names this machine in messages.

        Raises:
            JobError: this machine does not see what the driver sees, or cannot write there; one line.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while _read(self.path) != self.content:
            if time.monotonic() > deadline:
                raise JobError(f"{self.what} is not shared with node {node}; mount it there as on the head")
            time.sleep(0.5)
        own = self.path.with_name(f"{self.path.name}-{uuid.uuid4().hex[:8]}")
        try:
            own.write_text(self.content)
            same = _read(own) == self.content
            own.unlink()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise JobError(f"{self.what} cannot be written on node {node} ({reason})") from None
        if not same:
            raise JobError(f"{self.what} gives back something else than node {node} wrote there")


@contextmanager
def probe(out: Path) -> Iterator[Probe]:
    """The driver's file below OUT/work/probes, for as long as the block lasts."""
    content = uuid.uuid4().hex
    path = out / "work" / "probes" / content
    make_parents(path)
    path.write_text(content)
    try:
        yield Probe(path=path, content=content, what=f"OUT ({out})")
    finally:
        path.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
