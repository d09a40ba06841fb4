"""Jobs of `annotate` that are killed with -9 and run again, and what their datasets must be equal to."""

import json
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from voxmill.core.files import list_files
from voxmill.core.hashing import sha256_bytes
from voxmill.data.layout import read_index

INDEXES = ("clips.parquet", "rejected.parquet", "recordings.parquet")
# Titles of the Ray workers that do a job's work; a node does not survive the loss of others of its processes.
_WORKERS = tuple(f"ray::{name}" for name in ("MapWorker", "scan", "divide", "find", "plan", "read", "write"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Untouched:
    """The dataset of a job that was left alone, below a local path or a URI.

    digests: sha256 of every shard by name, and of every index's rows. rows: of each index, as JSON. clips: ids of all,
    rejected ones too.
    """

    digests: dict[str, str]
    rows: dict[str, list[str]]
    clips: frozenset[str]

    @classmethod
    def of(cls, out: Path) -> "Untouched":
        """What is in `out`."""
        rows = {name: index_rows(out, name) for name in INDEXES}
        return cls(digests=digests(out), rows=rows, clips=frozenset(clip_ids(out)))


@dataclass(kw_only=True)
class Tally:
    """Counts over all kills.

    lost: inputs and clips of the untouched dataset that are missing. repeated: those that come twice. moments: what
    was killed when.
    """

    kills: int = 0
    driver_kills: int = 0
    datasets: int = 0
    lost: int = 0
    repeated: int = 0
    same_bytes: bool = True
    moments: list[str] = field(default_factory=list)

    def count_kill(self, victim: str, kills: int, *, is_driver: bool, moment: str = "") -> None:
        """Counts one of `kills`, and says so."""
        self.kills += 1
        self.driver_kills += is_driver
        self.moments.append(f"{victim} {moment}".rstrip())
        print(f"kill {self.kills} of {kills}: {self.moments[-1]}", flush=True)

    def compare(self, out: Path, untouched: Untouched, inputs: Collection[str]) -> None:
        """Counts the faults of a dataset that is whole, and says so.

        Args:
            inputs: names of recordings, each of which must come out once.
        """
        names, clips = read_index(out / INDEXES[2], ["path"])["path"].to_pylist(), clip_ids(out)
        lost = len(set(inputs) - set(names)) + len(untouched.clips - set(clips))
        repeated = len(names) - len(set(names)) + len(clips) - len(set(clips))
        found = digests(out)
        self.lost += lost
        self.repeated += repeated
        self.same_bytes &= found == untouched.digests
        self.datasets += 1
        differing = sorted(name for name, digest in untouched.digests.items() if found.get(name) != digest)
        differing += sorted(found.keys() - untouched.digests.keys())
        words = f"dataset {self.datasets}: lost {lost}, twice {repeated}, {len(differing)} files differ {differing[:5]}"
        print(words.removesuffix(" []"), flush=True)
        for name in [name for name in differing if name in INDEXES]:
            now = index_rows(out, name)
            for sign, rows, others in (("-", untouched.rows[name], now), ("+", now, untouched.rows[name])):
                for row in [row for row in rows if row not in others][:3]:
                    print(f"{name}: {sign} {row}", flush=True)


def digests(out: Path) -> dict[str, str]:
    """sha256 of every shard by name, and of every index's rows."""
    found = {file.name: sha256_bytes((out / file.name).read_bytes()) for file in list_files(out, "shards")}
    for name in INDEXES:
        found[name] = sha256_bytes("\n".join(index_rows(out, name)).encode())
    return found


def index_rows(out: Path, name: str) -> list[str]:
    """The rows of an index as JSON, in its order."""
    return [json.dumps(row, sort_keys=True, default=str) for row in read_index(out / name).to_pylist()]


def clip_ids(out: Path) -> list[str]:
    """Ids of all clips, rejected ones too."""
    return [clip for name in INDEXES[:2] for clip in read_index(out / name, ["clip_id"])["clip_id"].to_pylist()]


def job_workers(head: psutil.Process) -> list[psutil.Process]:
    """Processes below `head`, of this benchmark's own Ray, that do some of a job's work now; by number."""
    return sorted(filter(is_job_worker, head.children(recursive=True)), key=lambda process: process.pid)


def is_job_worker(process: psutil.Process) -> bool:
    """Whether it does some of a job's work now."""
    try:
        return " ".join(process.cmdline()).startswith(_WORKERS)
    except psutil.Error:
        return False


def kill(victim: psutil.Process, job: "subprocess.Popen[bytes]") -> bool:
    """Kills a process with -9; returns whether it was the job's driver, which has ended then."""
    if victim.pid != job.pid:
        victim.kill()
        return False
    job.kill()
    job.wait()
    return True
