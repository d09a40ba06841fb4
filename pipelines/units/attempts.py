"""Who works on a unit right now, and what earlier attempts at it did: one small object a unit, gone when it is done.

It names the stage in which a unit ends its workers, the nodes on which that happened, and the model calls that a crash
made the job do twice. Nothing that the job produces depends on it.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from voxmill.core.files import make_parents
from voxmill.core.storage import file_names
from voxmill.data.records import Cost, StageName, WorkUnit, from_json_text, to_json_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One worker's try at a unit.

    run: of the job that it belongs to. node: Ray's id of the machine. stage: in progress, or the last one.
    calls: model calls of the stages that it has finished. ended: whether the worker finished all of its stages.
    error: what broke the worker's stage, where its process survived that.
    """

    run: str
    node: str
    pid: int
    stage: StageName
    calls: dict[StageName, int]
    ended: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """All attempts at a unit since its last result, oldest first."""

    attempts: tuple[Attempt, ...] = ()


def attempts_path(out: Path, bucket: str, unit_id: str) -> Path:
    """Where the attempts at a unit stand while it is not done; `bucket` is the name of its folder."""
    return out / "work" / "attempts" / bucket / f"{unit_id}.json"


def read_attempts(path: Path) -> tuple[Attempt, ...]:
    """Attempts at a unit; none where there is no such object, or where a crash cut it short."""
    try:
        return from_json_text(Attempts, path.read_bytes()).attempts
    except (FileNotFoundError, ValueError):
        return ()


def open_attempts(out: Path) -> Iterator[tuple[str, tuple[Attempt, ...]]]:
    """(unit id, attempts) of every unit that was begun and is not done."""
    folder = out / "work" / "attempts"
    for bucket in sorted(file_names(folder)):
        for name in sorted(file_names(folder / bucket)):
            yield name.removesuffix(".json"), read_attempts(folder / bucket / name)


def deaths(attempts: tuple[Attempt, ...], run: str, alive: set[str]) -> int:
    """Attempts of this run that ended unfinished on a node that is still there: those that the unit may be guilty of.

    Args:
        alive: Ray's ids of the nodes that are alive; with a node dies whatever works on it.
    """
    return sum(one.run == run and not one.ended and one.node in alive for one in attempts)


def with_lost_calls(unit: WorkUnit, attempts: tuple[Attempt, ...]) -> WorkUnit:
    """The unit, its costs with the calls of all attempts beyond those that its results stand on.

    Calls of labellers, whose costs lie beside their labels, are lost calls only where more than one attempt made them.
    """
    made: dict[StageName, list[int]] = {}
    for one in attempts:
        for stage, calls in one.calls.items():
            made.setdefault(stage, []).append(calls)
    costs = dict(unit.costs)
    for stage, calls_made in made.items():
        cost = costs.get(stage, Cost())
        lost = sum(calls_made) - (cost.calls if stage in unit.costs else calls_made[-1])
        if lost > 0:
            costs[stage] = dataclasses.replace(cost, lost_calls=lost)
    return dataclasses.replace(unit, costs=costs)


def model_calls(costs: Mapping[StageName, Cost]) -> tuple[int, int]:
    """Model calls behind a dataset over all runs, and how many of them had to be made again."""
    lost = sum(cost.lost_calls for cost in costs.values())
    return sum(cost.calls for cost in costs.values()) + lost, lost


class AttemptLog:
    """Keeps one worker's attempt at one unit in the unit's object, beside those of others before it.

    The object is written as each stage begins: what ends the process in that stage finds it there.
    """

    def __init__(self, path: Path, run: str, node: str):
        self._path, self._run, self._node = path, run, node
        self._earlier: tuple[Attempt, ...] = ()
        self._own: Attempt | None = None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Earlier attempts and this one."""
        return self._earlier if self._own is None else (*self._earlier, self._own)

    def begin(self, stage: StageName) -> None:
        """Says which stage runs now."""
        if self._own is None:
            self._earlier = read_attempts(self._path)
        own = self._own or Attempt(run=self._run, node=self._node, pid=os.getpid(), stage=stage, calls={})
        self._own = dataclasses.replace(own, stage=stage)
        self._write()

    def count(self, calls: int) -> None:
        """Adds the model calls of the stage that has just finished; they are written with what comes next."""
        assert self._own is not None
        self._own = dataclasses.replace(self._own, calls=self._own.calls | {self._own.stage: calls})

    def end(self, error: str = "") -> None:
        """The worker has finished its stages, or survived an error in one."""
        if self._own is not None:
            self._own = dataclasses.replace(self._own, ended=not error, error=error)
            self._write()

    def remove(self) -> None:
        """The unit is done."""
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        # Neither synced nor renamed into place: a machine that stops takes nothing of value with it.
        make_parents(self._path)
        self._path.write_bytes(to_json_text(Attempts(attempts=self.attempts)).encode())
