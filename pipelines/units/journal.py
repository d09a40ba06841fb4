"""What every actor began and finished, as it happens: shows the work that a crash made the job do twice, and the stage
in which a unit kills its worker.

One file an actor, two short lines a unit; nothing that the job produces depends on it.
"""

import os
import socket
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from voxmill.core.storage import is_remote
from voxmill.data.records import StageName


class Journal:
    """Appends `begin <unit>` and `end <unit> <calls>` to a file of this actor's own."""

    def __init__(self, out: Path, stage: StageName):
        name = f"{stage}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.log"
        self.path = out / "work" / "journal" / name

    def begin(self, unit_id: str) -> None:
        self._write(f"begin {unit_id}\n")

    def end(self, unit_id: str, calls: int) -> None:
        self._write(f"end {unit_id} {calls}\n")

    def _write(self, line: str) -> None:
        if is_remote(self.path):
            return  # object storage has no files that one appends to
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: the line has left this process before the work begins that may end it.
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode())


@dataclass
class Record:
    """How often a stage began and finished a unit, over all runs, and the model calls of one and of all times."""

    begun: int = 0
    finished: int = 0
    calls: int = 0
    all_calls: int = 0
    pids: set[int] = field(default_factory=set)


def read_journal(out: Path) -> dict[tuple[StageName, str], Record]:
    """Records by (stage, unit id). A line cut short by a crash counts for nothing."""
    records: dict[tuple[StageName, str], Record] = {}
    for path in [] if is_remote(out) else sorted((out / "work" / "journal").glob("*.log")):
        stage, pid = StageName(path.name.split(".")[0]), int(path.name.rsplit(".", 3)[-3])
        for line in path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True):
            words = line.split()
            if not line.endswith("\n") or len(words) < 2:
                continue
            record = records.setdefault((stage, words[1]), Record())
            if words[0] == "begin":
                record.begun += 1
                record.pids.add(pid)
            else:
                record.finished += 1
                record.calls = int(words[2])
                record.all_calls += int(words[2])
    return records


def repeated_calls(out: Path) -> tuple[int, int]:
    """Model calls made over all runs of OUT, and how many of them had been made before."""
    records = read_journal(out).values()
    return sum(r.all_calls for r in records), sum(r.all_calls - r.calls for r in records)


def culprits(out: Path, unit_id: str) -> list[StageName]:
    """Stages that began a unit and did not finish it every time."""
    return [
        stage
        for (stage, unit), record in read_journal(out).items()
        if unit == unit_id and record.begun > record.finished
    ]
