"""The worker of the graph: rows, costs, and which failures end a recording, a unit or the job."""

import dataclasses
import errno
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import AnnotateConfig
from pipelines.engine.graph import STAGES, Cluster, pools_of
from pipelines.engine.worker import Row, Worker, from_rows, no_audio, to_rows
from pipelines.stages.base import Stage, StageContext, WindowAudio, WindowOutput
from pipelines.units.journal import read_journal
from voxmill.core.errors import UserError
from voxmill.data.records import (
    Candidate,
    Cost,
    JobFailure,
    SourceInfo,
    StageName,
    Window,
    WindowResult,
    WorkUnit,
)

CONTEXT = AnnotateConfig()


def context(out: Path) -> StageContext:
    return StageContext(
        out=out, label=CONTEXT.label, voice_attributes=CONTEXT.voice_attributes, threads=1, device="cpu"
    )


def result_of(name: str, num_candidates: int = 0) -> WindowResult:
    window = Window(
        recording_id=name,
        name=name,
        path=name,
        start_sample=0,
        end_sample=32000,
        sample_rate=16000,
        source=SourceInfo(session=name),
    )
    candidates = tuple(
        Candidate(clip_id=f"{name}{i}", start_sample=0, end_sample=1, turn=0, cut="pause")
        for i in range(num_candidates)
    )
    return WindowResult(window=window, candidates=candidates)


def unit_of(*names: str) -> WorkUnit:
    return WorkUnit(unit_id="u", results=tuple(result_of(name) for name in names), costs={})


class Double(Stage):
    """Doubles the samples; breaks on names that say so."""

    name = StageName.QUALITY
    cpu_share = 0.1

    def __init__(self, context: StageContext) -> None:
        pass

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        if result.window.name == "odd":
            raise ValueError("odd audio")
        if result.window.name == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/out/x")
        return WindowOutput(result, dataclasses.replace(audio, samples=2 * audio.samples), 1)


class Unloadable(Double):
    """A stage whose model is not there."""

    def __init__(self, context: StageContext) -> None:
        raise UserError("quality.model=x: not there")


def test_a_row_comes_back_with_its_audio() -> None:
    ones, ramp = np.ones(3, dtype=np.float32), np.arange(5, dtype=np.float32)
    first = WorkUnit(unit_id="a", results=(result_of("x", 2), result_of("y"), result_of("z", 1)), costs={})
    audio = (
        WindowAudio(samples=ramp, original=ones, clips=(ones, ramp)),
        WindowAudio(),
        WindowAudio(samples=ones, clips=(ramp,)),
    )
    second = WorkUnit(unit_id="b", results=(), costs={StageName.DECODE: Cost(calls=1)})
    rows = from_rows(to_rows([Row(first, audio), Row(second, ())]))
    assert [row.unit for row in rows] == [first, second] and rows[1].audio == ()
    for given, back in zip(audio, rows[0].audio, strict=True):
        for name in ("samples", "original"):
            assert getattr(back, name).tobytes() == getattr(given, name).tobytes()
        assert [clip.tolist() for clip in back.clips] == [clip.tolist() for clip in given.clips]


def test_a_row_before_any_stage_has_empty_audio() -> None:
    unit = unit_of("x", "y")
    (row,) = from_rows(to_rows([Row(unit, no_audio(unit))]))
    assert [len(sound.samples) for sound in row.audio] == [0, 0] and row.unit == unit


def test_a_recording_that_breaks_a_model_ends_alone(tmp_path: Path) -> None:
    unit = unit_of("x", "odd", "y")
    audio = tuple(WindowAudio(samples=np.ones(2, dtype=np.float32)) for _ in range(3))
    done = Worker((Double, Double), context(tmp_path)).run(Row(unit, audio))
    endings = [result.ending for result in done.unit.results]
    assert endings[0] is None and endings[2] is None and endings[1] is not None
    assert (endings[1].stage, endings[1].reason) == (StageName.QUALITY, "model_error")
    assert endings[1].detail == "ValueError: odd audio"
    assert [sound.samples.tolist() for sound in done.audio] == [[4, 4], [], [4, 4]]
    cost = done.unit.costs[StageName.QUALITY]
    assert (cost.audio_seconds, cost.calls) == (4.0, 2) and cost.seconds > 0
    assert read_journal(tmp_path)[StageName.QUALITY, "u"].finished == 2


def test_a_full_disk_is_the_units_failure_and_no_recordings(tmp_path: Path) -> None:
    done = Worker((Double, Double), context(tmp_path)).run(Row(unit_of("x", "full"), no_audio(unit_of("x", "full"))))
    assert done.unit.failure == JobFailure(kind="machine", message="quality: No space left on device (/out/x)")
    assert all(result.ending is None for result in done.unit.results) and done.unit.costs == {}
    record = read_journal(tmp_path)[StageName.QUALITY, "u"]
    assert (record.begun, record.finished) == (1, 0)


def test_a_model_that_does_not_load_runs_nothing(tmp_path: Path) -> None:
    done = Worker((Double, Unloadable), context(tmp_path)).run(Row(unit_of("x"), no_audio(unit_of("x"))))
    assert done.unit.failure == JobFailure(kind="user", message="quality.model=x: not there")
    assert read_journal(tmp_path) == {}


@pytest.mark.parametrize(("gpus", "pools", "expected"), [(0, None, 1), (0, True, 8), (2, None, 8), (2, False, 1)])
def test_every_model_has_a_pool_where_there_are_gpus(gpus: float, pools: bool | None, expected: int) -> None:
    config = AnnotateConfig.model_validate({"run": {"pools": pools}})
    made = pools_of(STAGES, config, Cluster(workers=2, gpus=gpus))
    assert len(made) == expected and [stage for pool in made for stage in pool.stages] == list(STAGES)
    assert sum(pool.cpu_share for pool in made) == pytest.approx(1.0)
    assert all(bool(pool.gpu_share) == (gpus > 0 and any(s.uses_gpu for s in pool.stages)) for pool in made)


def test_stages_have_names_of_their_own() -> None:
    assert len({stage.name for stage in STAGES}) == len(STAGES)
