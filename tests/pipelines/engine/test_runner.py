"""Who is guilty of a worker's death: the window that it dies of, and no other one of its unit."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.config import AnnotateConfig
from pipelines.engine.pools import Cluster
from pipelines.engine.runner import Runner
from pipelines.stages.base import Stage, StageContext, UnitOutput, WindowAudio
from pipelines.units.attempts import Attempts, attempts_path, read_attempts
from pipelines.units.plan_files import BucketPlan, read_units, write_bucket
from pipelines.units.store import read_unit, unit_path, write_unit
from pipelines.units.unit import group, label_fingerprint
from tests.pipelines.engine.made_results import result_of
from voxmill.core.files import write_atomically
from voxmill.core.progress import Progress
from voxmill.data.layout import bucket_name
from voxmill.data.records import StageName, WorkUnit, to_json_text

CONFIG = AnnotateConfig.model_validate({"label": {"unit_seconds": 60.0}, "run": {"workers": 1}})
LOST = 3
"""Tries of the innocent window, alone, that end with their node: all that one pass gives it."""


class Deadly(Stage):
    """Ends its process over the guilty window. A node that is taken away ends the first tries at the other one."""

    name = StageName.SEGMENTATION

    def __init__(self, context: StageContext) -> None:
        self.out = context.out

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        names = [result.window.name for result in unit.results]
        path = attempts_path(self.out, bucket_name(unit.bucket), unit.unit_id)
        tries = read_attempts(path)
        if names == ["innocent"] and len(tries) <= LOST:
            gone = Attempts(attempts=tuple(dataclasses.replace(one, node="gone") for one in tries))
            write_atomically(path, to_json_text(gone).encode())
            os._exit(1)
        if "guilty" in names:
            os._exit(1)
        return UnitOutput(unit, tuple(audio))


class Keep(Stage):
    """Writes the unit."""

    name = StageName.WRITE
    is_final = True

    def __init__(self, context: StageContext) -> None:
        self.out = context.out

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        write_unit(unit_path(self.out, unit.bucket, unit.unit_id), unit)
        return UnitOutput(unit, tuple(audio))


@pytest.mark.slow  # 42 s: sixteen processes die and are started again
@pytest.mark.usefixtures("ray_here")
def test_a_window_that_is_lost_with_its_node_is_not_blamed_for_another_one(tmp_path: Path) -> None:
    windows = [
        dataclasses.replace(result_of(name).window, recording_id=digit * 32)
        for name, digit in (("guilty", "f"), ("innocent", "e"))
    ]
    (unit,) = group(windows, 60, label_fingerprint(CONFIG.label))
    write_bucket(tmp_path, 0, BucketPlan(recordings=(), units=(unit,)))
    runner = Runner(tmp_path, CONFIG, Cluster.now(), Progress(enabled=False), [0], (Deadly, Keep))
    runner.label_units()
    endings = {
        result.window.name: result.ending and result.ending.reason
        for part in read_units(tmp_path, 0, CONFIG.label)
        for result in read_unit(unit_path(tmp_path, 0, part.unit_id)).unit.results
    }
    assert endings == {"guilty": "crash", "innocent": None}
