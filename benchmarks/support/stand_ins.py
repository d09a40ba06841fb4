"""Stages that sleep in place of their models, for measurements of the graph around them.

They hand on as much audio as real ones do. What a stage of models did when is written beside OUT.
"""

import dataclasses
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.stages.base import Stage, StageContext, UnitOutput, WindowAudio
from pipelines.units.store import unit_path, write_unit
from voxmill.core.local_ray import this_node
from voxmill.data.records import Candidate, SourceInfo, StageName, Window, WindowResult, WorkUnit

RATE = 48_000
CLIP_SECONDS = 6


def stand_in_units(count: int, seconds: float, bucket: int = 0) -> list[WorkUnit]:
    """Units of one window each."""
    units = []
    for number in range(count):
        name = f"{number:05d}-{seconds:g}"
        window = Window(
            recording_id=name,
            name=name,
            path=name,
            start_sample=0,
            end_sample=round(seconds * RATE),
            sample_rate=RATE,
            source=SourceInfo(session=name),
        )
        units.append(WorkUnit(unit_id=name, bucket=bucket, results=(WindowResult(window=window),), costs={}))
    return units


def busy_folder(out: Path) -> Path:
    """Where every actor of models keeps (begin, end) of its units, in a file whose name begins with its node's id."""
    return out.with_name(f"{out.name}-busy")


def prepared_folder(out: Path) -> Path:
    """Where every actor that prepares keeps the times at which its units were ready for models."""
    return out.with_name(f"{out.name}-prepared")


class SleepingPrepare(Stage):
    """Makes silence of the window's length."""

    name = StageName.DECODE

    def __init__(self, context: StageContext) -> None:
        self._file = prepared_folder(context.out) / f"{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._file.parent.mkdir(parents=True, exist_ok=True)

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        time.sleep(0.02)
        (result,) = unit.results
        samples = np.zeros(result.window.end_sample, dtype=np.float32)
        with open(self._file, "a", encoding="ascii") as file:
            file.write(f"{time.time()}\n")
        return UnitOutput(unit, (WindowAudio(samples=samples, step=2.0**-15),))


class SleepingModels(Stage):
    """Takes 0.3 s and a hundredth of the window's length, and cuts it into clips; loading takes 2 s."""

    name = StageName.TRANSCRIPTION
    seconds_a_unit = 0.3

    def __init__(self, context: StageContext) -> None:
        time.sleep(2)
        # Outside of Ray there is no node's id.
        node = this_node()[0] or "none"
        self._file = busy_folder(context.out) / f"{node}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._file.parent.mkdir(parents=True, exist_ok=True)

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        began = time.time()
        time.sleep(self.seconds_a_unit + 0.01 * unit.seconds)
        (result,), (sound,) = unit.results, audio
        size = CLIP_SECONDS * RATE
        starts = range(0, result.window.end_sample, size)
        candidates = tuple(
            Candidate(
                clip_id=f"{unit.unit_id}-{start}", start_sample=start, end_sample=start + size, turn=0, cut="pause"
            )
            for start in starts
        )
        clips = tuple(sound.samples[start : start + size] for start in starts)
        with open(self._file, "a", encoding="ascii") as file:
            file.write(f"{began} {time.time()}\n")
        done = dataclasses.replace(unit, results=(dataclasses.replace(result, candidates=candidates),))
        return UnitOutput(done, (WindowAudio(clips=clips, step=sound.step),), 1)


class SlowModels(SleepingModels):
    """Takes 2 s a unit, so that a node which comes late finds work."""

    seconds_a_unit = 2.0


class SleepingMeasure(Stage):
    """Writes the unit without its audio."""

    name = StageName.WRITE
    is_final = True

    def __init__(self, context: StageContext) -> None:
        self.out = context.out

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        time.sleep(0.04)
        assert all(len(clip) for sound in audio for clip in sound.clips)
        write_unit(unit_path(self.out, unit.bucket, unit.unit_id), unit)
        return UnitOutput(unit, tuple(WindowAudio() for _ in audio))
