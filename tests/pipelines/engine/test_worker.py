"""The worker of the graph: costs, and which failures end a recording, a unit or the job."""

import dataclasses
import errno
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import AnnotateConfig
from pipelines.engine.rows import Row, no_audio
from pipelines.engine.worker import Shift, Worker
from pipelines.stages.base import Stage, StageContext, UnseenInputError, WindowAudio, WindowOutput
from pipelines.units.attempts import open_attempts
from pipelines.units.probe import probe
from tests.pipelines.engine.made_results import result_of
from voxmill.core.errors import UserError
from voxmill.data.records import (
    JobFailure,
    StageName,
    WindowResult,
    WorkUnit,
)

CONTEXT = AnnotateConfig()


def context(out: Path) -> StageContext:
    return StageContext(
        out=out, label=CONTEXT.label, voice_attributes=CONTEXT.voice_attributes, threads=1, device="cpu"
    )


def unit_of(*names: str) -> WorkUnit:
    return WorkUnit(unit_id="u", results=tuple(result_of(name) for name in names), costs={})


class Double(Stage):
    """Doubles the samples; breaks on names that say so."""

    name = StageName.QUALITY

    def __init__(self, context: StageContext) -> None:
        pass

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        if result.window.name == "odd":
            raise ValueError("odd audio")
        if result.window.name == "unseen":
            raise UnseenInputError(errno.ENOENT, "no such file", "/in/unseen")
        if result.window.name == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/out/x")
        return WindowOutput(result, dataclasses.replace(audio, samples=2 * audio.samples), 1)


class Unloadable(Double):
    """A stage whose model is not there."""

    def __init__(self, context: StageContext) -> None:
        raise UserError("quality.model=x: not there")


def worker(out: Path, *stages: type[Stage], is_last: bool = False) -> Worker:
    return Worker(Shift(run="r", stages=stages, is_last=is_last), context(out))


def test_seconds_of_a_worker_with_a_gpu_are_those_of_the_gpu(tmp_path: Path) -> None:
    shift = Shift(run="r", stages=(Double,), is_last=False, on_gpu=True)
    sound = (WindowAudio(samples=np.ones(2, dtype=np.float32)),)
    cost = Worker(shift, context(tmp_path)).run(Row(unit_of("x"), sound)).unit.costs[StageName.QUALITY]
    assert cost.gpu_seconds == cost.seconds > 0
    assert (cost + cost).gpu_seconds == 2 * cost.seconds


def test_a_recording_that_breaks_a_model_ends_alone(tmp_path: Path) -> None:
    unit = unit_of("x", "odd", "y")
    audio = tuple(WindowAudio(samples=np.ones(2, dtype=np.float32)) for _ in range(3))
    done = worker(tmp_path, Double, Double).run(Row(unit, audio))
    endings = [result.ending for result in done.unit.results]
    assert endings[0] is None and endings[2] is None and endings[1] is not None
    assert (endings[1].stage, endings[1].reason) == (StageName.QUALITY, "model_error")
    assert endings[1].detail == "ValueError: odd audio"
    assert [sound.samples.tolist() for sound in done.audio] == [[4, 4], [], [4, 4]]
    cost = done.unit.costs[StageName.QUALITY]
    assert (cost.audio_seconds, cost.calls) == (4.0, 2) and cost.seconds > 0 and cost.gpu_seconds == 0
    ((unit_id, (attempt,)),) = open_attempts(tmp_path)
    assert unit_id == "u" and attempt.ended and attempt.calls == {StageName.QUALITY: 2}


def test_a_full_disk_is_the_units_failure_and_no_recordings(tmp_path: Path) -> None:
    done = worker(tmp_path, Double, Double).run(Row(unit_of("x", "full"), no_audio(unit_of("x", "full"))))
    failure = done.unit.failure
    assert failure is not None and failure.kind == "machine" and failure.path == ""
    assert failure.message.startswith("quality: No space left on device (/out/x) on node ")
    assert all(result.ending is None for result in done.unit.results) and done.unit.costs == {}
    ((_, (attempt,)),) = open_attempts(tmp_path)
    assert not attempt.ended and attempt.stage is StageName.QUALITY and attempt.calls == {}


def test_an_input_that_a_machine_does_not_see_is_that_machines_failure(tmp_path: Path) -> None:
    done = worker(tmp_path, Double).run(Row(unit_of("unseen"), no_audio(unit_of("unseen"))))
    failure = done.unit.failure
    assert failure is not None and failure.path == "/in/unseen" and done.unit.results[0].ending is None
    assert failure.message.startswith("IN (/in/unseen) is not visible on node ")


def test_a_full_gpu_is_no_recordings_failure(tmp_path: Path) -> None:
    class Full(Double):
        def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
            raise RuntimeError("CUDA failed with error out of memory")

    failure = worker(tmp_path, Full).run(Row(unit_of("x"), no_audio(unit_of("x")))).unit.failure
    assert failure is not None and "out of memory" in failure.message


def test_a_library_that_asks_to_exit_ends_one_recording(tmp_path: Path) -> None:
    class Exits(Double):
        def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
            raise SystemExit(0)

    done = worker(tmp_path, Exits).run(Row(unit_of("x"), no_audio(unit_of("x"))))
    assert done.unit.results[0].ending is not None and done.unit.results[0].ending.reason == "model_error"


def test_a_machine_that_does_not_share_out_runs_nothing_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.units.probe.PATIENCE_SECONDS", 0.0)
    with probe(tmp_path / "out") as shared:
        there = Worker(Shift(run="r", stages=(Double,), is_last=False, probe=shared), context(tmp_path / "out"))
        assert there.run(Row(unit_of("x"), no_audio(unit_of("x")))).unit.failure is None
        elsewhere = dataclasses.replace(shared, path=tmp_path / "other" / shared.path.name)
        lost = Worker(Shift(run="r", stages=(Double,), is_last=False, probe=elsewhere), context(tmp_path / "other"))
        failure = lost.run(Row(unit_of("x"), no_audio(unit_of("x")))).unit.failure
    assert failure is not None and "is not shared with node" in failure.message
    assert not (tmp_path / "other").exists() and not list((tmp_path / "out" / "work" / "probes").iterdir())


def test_a_unit_that_is_done_leaves_no_attempt_and_comes_back_small(tmp_path: Path) -> None:
    done = worker(tmp_path, Double, is_last=True).run(Row(unit_of("x"), no_audio(unit_of("x")), 2.0))
    assert list(open_attempts(tmp_path)) == []
    assert (done.unit.results, done.audio, done.seconds) == ((), (), 2.0)


def test_a_model_that_does_not_load_runs_nothing(tmp_path: Path) -> None:
    done = worker(tmp_path, Double, Unloadable).run(Row(unit_of("x"), no_audio(unit_of("x"))))
    assert done.unit.failure == JobFailure(kind="user", message="quality.model=x: not there")
    assert list(open_attempts(tmp_path)) == []
