"""Whether a process of this machine still lives, told apart from a later one with its number."""

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process. `place`: its host, boot and container, in which numbers mean it; `started`: in ticks since boot."""

    place: str
    number: int
    started: str

    @classmethod
    def own(cls) -> "ProcessId":
        """Of the process that asks."""
        return cls(_place(), os.getpid(), _started(os.getpid()))

    def is_here(self) -> bool:
        """Whether it is a process of this place, of which this process can know whether it lives."""
        return self.place == _place()

    def is_dead(self) -> bool:
        """Whether it is a process of this place that is gone; False where this process cannot know."""
        return self.is_here() and _started(self.number) != self.started


@cache
def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    parts = [socket.gethostname(), boot.read_text(encoding="ascii").strip() if boot.exists() else ""]
    space = Path("/proc/self/ns/pid")
    return ":".join([*parts, os.readlink(space) if space.is_symlink() else ""])


def _started(number: int) -> str:
    """When it began; "" where there is no such process, or one that only waits to be buried."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The name of the process, in brackets, may hold anything.
    state = text.rpartition(")")[2].split()
    return "" if state[0] == "Z" else state[19]
