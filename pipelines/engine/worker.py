"""The actor of the graph: runs stages over work units, keeps their costs, and tells failures of the machine apart.

A row of the graph is one unit: its record as JSON, its audio beside it as Arrow lists of float32.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.stages.base import NO_SAMPLES, Stage, StageContext, UnitOutput, WindowAudio
from pipelines.units.journal import Journal
from voxmill.core.errors import UserError
from voxmill.core.malloc import release_free_memory
from voxmill.data.records import Cost, JobFailure, StageName, WorkUnit, from_json_text, to_json_text

# Three minutes at 48 kHz.
LARGE_SAMPLES = 180 * 48000

_SOUNDS = pa.large_list(pa.large_list(pa.float32()))
ROW = pa.schema([("unit", pa.large_string()), ("samples", _SOUNDS), ("original", _SOUNDS), ("clips", _SOUNDS)])
"""`samples` and `original` have a list a window of the unit, `clips` one a candidate of all its windows."""


class Row(NamedTuple):
    """A unit on its way, with the audio of its windows."""

    unit: WorkUnit
    audio: tuple[WindowAudio, ...]


def no_audio(unit: WorkUnit) -> tuple[WindowAudio, ...]:
    """Empty audio for every window of a unit."""
    return tuple(WindowAudio() for _ in unit.results)


def to_rows(rows: Sequence[Row]) -> pa.Table:
    """Rows of the graph as a table."""
    return pa.table(
        {
            "unit": pa.array([to_json_text(row.unit) for row in rows], pa.large_string()),
            "samples": _sounds([[sound.samples for sound in row.audio] for row in rows]),
            "original": _sounds([[sound.original for sound in row.audio] for row in rows]),
            "clips": _sounds([[clip for sound in row.audio for clip in sound.clips] for row in rows]),
        },
        schema=ROW,
    )


def from_rows(table: pa.Table) -> list[Row]:
    """Rows of the graph; arrays share the table's memory and cannot be written to."""
    rows = []
    for number, text in enumerate(table["unit"].to_pylist()):
        unit = from_json_text(WorkUnit, text)
        samples, original, clips = (_arrays(table[name][number].values) for name in ROW.names[1:])
        audio, first = [], 0
        for index, result in enumerate(unit.results):
            count = len(result.clips) if clips else 0
            audio.append(
                WindowAudio(samples=samples[index], original=original[index], clips=tuple(clips[first : first + count]))
            )
            first += count
        rows.append(Row(unit, tuple(audio)))
    return rows


def _sounds(rows: Sequence[Sequence[np.ndarray]]) -> pa.Array:
    sounds = [sound for row in rows for sound in row]
    values = np.concatenate(sounds).astype(np.float32, copy=False) if sounds else NO_SAMPLES
    inner = pa.LargeListArray.from_arrays(_offsets([len(sound) for sound in sounds]), pa.array(values))
    return pa.LargeListArray.from_arrays(_offsets([len(row) for row in rows]), inner)


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64), pa.int64())


def _arrays(sounds: pa.LargeListArray) -> list[np.ndarray]:
    """The inner lists as NumPy arrays, without a copy."""
    return [sound.values.to_numpy(zero_copy_only=True) for sound in sounds]


class Worker:
    """Runs stages one after another over each unit; audio stays in this process between them.

    A failure that no recording is to blame for (no space, no memory, a model that does not load) travels to the driver
    in the unit, past all later stages: the driver ends the job with one line.
    """

    def __init__(self, stages: Sequence[type[Stage]], context: StageContext):
        self._context = context
        self._stages: list[tuple[Stage, Journal]] = []
        self._failure: JobFailure | None = None
        for stage in stages:
            try:
                self._stages.append((stage(context), Journal(context.out, stage.name)))
            except UserError as error:
                self._failure = JobFailure(kind="user", message=str(error))
            except (ImportError, MemoryError, OSError) as error:
                self._failure = _machine_failure(stage.name, error)
            if self._failure is not None:
                break

    def __call__(self, batch: pa.Table) -> pa.Table:
        return to_rows([self.run(row) for row in from_rows(batch)])

    def run(self, row: Row) -> Row:
        """Runs all stages over a unit; none after a failure."""
        unit, audio = row
        if self._failure is not None and unit.failure is None:
            unit = dataclasses.replace(unit, failure=self._failure)
        for stage, journal in self._stages:
            if unit.failure is not None:
                break
            unit, audio = _run_stage(stage, journal, unit, audio)
        return Row(unit, audio if unit.failure is None else no_audio(unit))


def _run_stage(stage: Stage, journal: Journal, unit: WorkUnit, audio: tuple[WindowAudio, ...]) -> Row:
    began = time.perf_counter()
    try:
        journal.begin(unit.unit_id)
        output = stage.run(unit, audio)
        journal.end(unit.unit_id, output.calls)
    except (ImportError, MemoryError, OSError) as error:
        return Row(dataclasses.replace(unit, failure=_machine_failure(stage.name, error)), audio)
    finally:
        _release_memory(unit)
    return Row(_with_cost(output, stage.name, time.perf_counter() - began), output.audio)


def _with_cost(output: UnitOutput, name: StageName, seconds: float) -> WorkUnit:
    left = sum(result.window.seconds for result in output.unit.results if result.ending is None)
    cost = Cost(seconds=seconds, audio_seconds=left, calls=output.calls)
    return dataclasses.replace(output.unit, costs=output.unit.costs | {name: cost})


def _release_memory(unit: WorkUnit) -> None:
    """Gives free memory back to the system after a long unit; after short ones that only costs time."""
    if sum(result.window.end_sample - result.window.start_sample for result in unit.results) >= LARGE_SAMPLES:
        release_free_memory()


def _machine_failure(name: StageName, error: BaseException) -> JobFailure:
    place = getattr(error, "filename", None)
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return JobFailure(kind="machine", message=f"{name}: {what}" + (f" ({place})" if place else ""))
