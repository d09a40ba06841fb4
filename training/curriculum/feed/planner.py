"""The planning process: plans the rows of all ranks of a node, and tells each its own.

It serves requests, one after another, over a Unix socket that it inherits. A rank asks for a step some steps before it
trains on it, so that planning is hidden behind the step; a further step is planned while nobody asks. Nothing here
imports torch: the process starts in a fraction of a second and takes little memory. It ends when its standard input
does, that is with the rank that started it, whatever ended that.
"""

import mmap
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.curriculum.clip_slices import ClipSlices
from training.curriculum.row_plan import PlanSettings, RowPlan, SampleStreamState
from training.curriculum.sample_draws import DrawnStream, NothingUsable
from training.curriculum.sample_order import share
from training.curriculum.sample_plan import PlanArrays, PlannedSample
from voxmill.core.errors import UserError

STDIN = 0


@dataclass(frozen=True, slots=True)
class Mapped:
    """An array in a file."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def open(self) -> NDArray[Any]:
        """The array, mapped."""
        # As a plain array: taking from a `memmap` would look up its file each time.
        return np.asarray(np.memmap(self.path, mode="r", offset=self.offset, shape=self.shape, dtype=self.dtype))


@dataclass(frozen=True, slots=True)
class Join:
    """The first message of each rank. `inputs`: of the one that starts the process."""

    rank: int
    inputs: "PlanInputs | None" = None


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What is planned. `world`: all ranks; `here`: those that ask this process."""

    streams: list[DrawnStream]
    arrays: PlanArrays
    settings: PlanSettings
    world: int
    here: int


@dataclass(frozen=True, slots=True)
class Restart:
    """Plan from `state` on, without `clips`. Each restart has the next `generation`; all ranks ask for the same."""

    generation: int
    state: SampleStreamState
    clips: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """The rows of a step, from 0."""

    generation: int
    step: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A rank's rows of a step, with their numbers; `state`: after the step. `cpu`: seconds of the process so far."""

    rows: list[tuple[int, list[PlannedSample]]]
    state: SampleStreamState
    cpu: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer. `examples`: of samples that cannot be used, a clip for each reason."""

    message: str
    is_user_error: bool = False
    examples: dict[str, int] | None = None


class Stale:
    """The answer to a question of an earlier generation, which nobody waits for any more."""


Reply = SampleStreamState | StepPlan | Failure | Stale


def in_files(inputs: PlanInputs) -> PlanInputs:
    """The same with arrays that are mapped from files as their places there, so that they are not sent."""
    arrays = {field.name: _in_file(getattr(inputs.arrays, field.name)) for field in fields(PlanArrays)}
    streams = [replace(stream, clips=_with_clips(stream.clips, _in_file)) for stream in inputs.streams]
    return replace(inputs, arrays=PlanArrays(**arrays), streams=streams)


def _with_clips(clips: Any, change: Callable[[Any], Any]) -> Any:
    """A stream's clips with another array."""
    if isinstance(clips, ClipSlices):
        return ClipSlices(change(clips.group_clips), clips.slices)
    return change(clips)


def _in_file(array: NDArray[Any]) -> Any:
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    if not (isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap) and array.flags.c_contiguous):
        return np.asarray(array)
    offset = int(base.offset) + array.ctypes.data - base.ctypes.data
    return Mapped(str(base.filename), offset, array.shape, array.dtype.str)


def _opened(inputs: PlanInputs) -> PlanInputs:
    def opened(array: Any) -> NDArray[Any]:
        found: NDArray[Any] = array.open() if isinstance(array, Mapped) else array
        return found

    arrays = {field.name: opened(getattr(inputs.arrays, field.name)) for field in fields(PlanArrays)}
    streams = [replace(stream, clips=_with_clips(stream.clips, opened)) for stream in inputs.streams]
    return replace(inputs, arrays=PlanArrays(**arrays), streams=streams)


class Planner:
    """Plans steps and keeps each until all ranks of the node have it."""

    def __init__(self, inputs: PlanInputs) -> None:
        self._inputs = inputs = _opened(inputs)
        self._plan = RowPlan(inputs.streams, inputs.arrays, inputs.settings)
        self._generation, self._restarted = 0, self._plan.state()
        self._steps: dict[int, tuple[list[list[PlannedSample]], SampleStreamState]] = {}
        self._taken: dict[int, int] = {}
        self._asked = 0
        """One more than the last step that somebody asked for."""

    def answer(self, rank: int, message: Join | Restart | Ask) -> Reply:
        """The answer to a rank."""
        try:
            if isinstance(message, Join):
                return self._restarted
            if isinstance(message, Restart):
                return self._restart(message)
            return self._rows(rank, message)
        except NothingUsable as error:
            return Failure("", examples=error.examples)
        except UserError as error:
            return Failure(str(error), is_user_error=True)

    def plan_ahead(self) -> bool:
        """Plans one more step where it will be asked for soon; whether it did."""
        if not self._asked or self._plan.step > self._asked or self._plan.step >= self._inputs.settings.steps:
            return False
        try:
            self._plan_step()
        except (NothingUsable, UserError):
            # Whoever asks for the step is told.
            return False
        return True

    def _restart(self, message: Restart) -> SampleStreamState:
        if message.generation > self._generation:
            # From scratch: a failure on the way leaves nothing half done behind.
            self._plan = RowPlan(self._inputs.streams, self._inputs.arrays, self._inputs.settings)
            self._plan.restore(message.state)
            if message.clips:
                self._plan.quarantine(message.clips)
            self._steps, self._taken, self._asked = {}, {}, 0
            self._generation, self._restarted = message.generation, self._plan.state()
        return self._restarted

    def _rows(self, rank: int, message: Ask) -> StepPlan | Stale:
        if message.generation != self._generation:
            return Stale()
        self._asked = max(self._asked, message.step + 1)
        while self._plan.step <= message.step:
            self._plan_step()
        rows, state = self._steps[message.step]
        self._taken[message.step] = self._taken.get(message.step, 0) + 1
        if self._taken[message.step] == self._inputs.here:
            del self._steps[message.step], self._taken[message.step]
        mine = [(number, rows[number]) for number in share(len(rows), rank, self._inputs.world)]
        return StepPlan(mine, state, time.process_time())

    def _plan_step(self) -> None:
        rows = self._plan.next_step()
        self._steps[self._plan.step - 1] = (rows, self._plan.state())


def serve(listener: socket.socket) -> None:
    """Answers until standard input ends."""
    ranks: dict[Connection, int] = {}
    planner: Planner | None = None
    while True:
        ready = wait([listener, STDIN, *ranks], timeout=0)
        if not ready and not (planner is not None and planner.plan_ahead()):
            ready = wait([listener, STDIN, *ranks])
        for one in ready:
            if one is listener:
                ranks[Connection(listener.accept()[0].detach())] = -1
            elif one == STDIN:
                if not os.read(STDIN, 1):
                    return
            elif isinstance(one, Connection):
                try:
                    message = one.recv()
                except (EOFError, ConnectionResetError):
                    del ranks[one]
                    continue
                if isinstance(message, Join):
                    ranks[one] = message.rank
                    planner = planner if message.inputs is None else Planner(message.inputs)
                assert planner is not None, "the rank that starts the process joins first"
                _send(one, planner.answer(ranks[one], message))


def _send(connection: Connection, reply: Reply) -> None:
    try:
        connection.send(reply)
    except (BrokenPipeError, ConnectionResetError):
        # The rank has ended; its end is noticed where it is read from.
        return


def main(descriptor: int) -> None:
    """Serves the socket of this descriptor; an error is printed with its traceback, and is the end of the process."""
    try:
        serve(socket.socket(fileno=descriptor))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        # No clean-up that could hang: the ranks see their connections close.
        os._exit(1)
