"""A run between its steps, seen from inside one process."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint
from samples.fabricate import CHECKPOINT
from training.curriculum.corpus import read_corpus
from training.curriculum.loop import Run
from training.curriculum.recipe import Recipe, load_recipe
from training.run.checkpoints import read_tensors
from training.run.stop_signal import StopSignal
from training.run.world import World
from voxmill.core.errors import ExitStatus, JobError, status_and_line

SHORT = ("steps=5", "rows=1", "optimizer.warmup_steps=1", "run.hang_seconds=null", "run.tracking_uri=none")


def recipe_of(encoded: Path, out: Path, *overrides: str) -> Recipe:
    start = (f"datasets.main.path={encoded}", f"init={CHECKPOINT}", *SHORT, *overrides, f"run.out={out}")
    return load_recipe("tiny_finetune_full", list(start))


def test_a_stop_signal_before_the_first_step_is_answered_before_it(
    encoded: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, stop = recipe_of(encoded, tmp_path), StopSignal()
    run = Run(recipe, read_corpus(recipe), world, stop)
    stop.set()
    assert run() == ExitStatus.STOPPED and run.step == 0
    assert "stopped by a signal before the first step" in capsys.readouterr().out
    assert [path.name for path in run.checkpoints.paths()] == ["step-00000000"]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_infinite_settings_are_resumed_and_a_changed_learning_rate_is_printed(
    encoded: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    infinite = ("optimizer.clip=.inf", "health.spike=.inf", "optimizer.ema=null", "run.save_every=5")
    for rate, status in ((1e-4, ExitStatus.STOPPED), (2e-4, ExitStatus.DONE)):
        recipe, stop = recipe_of(encoded, tmp_path, *infinite, f"optimizer.learning_rate={rate}"), StopSignal()
        run = Run(recipe, read_corpus(recipe), world, stop)
        if status == ExitStatus.STOPPED:
            stop.set()
        assert run() == status
    assert "optimizer.learning_rate: 0.0001 -> 0.0002" in capsys.readouterr().out


def test_weights_that_give_no_finite_loss_end_the_run_with_the_way_to_resume(
    encoded: Path, world: World, tmp_path: Path
) -> None:
    recipe = recipe_of(encoded, tmp_path, "optimizer.learning_rate=1e30", "run.save_every=1")
    run = Run(recipe, read_corpus(recipe), world, StopSignal())
    with pytest.raises(JobError) as caught:
        run()
    status, line = status_and_line(caught.value, resume_hint="progress is saved; run the same command again to resume")
    assert status == ExitStatus.FAILED and line == (
        "step 1: the loss of a good row is not finite either; lower optimizer.learning_rate, remove step-00000001, "
        "whose weights give none, and run the same command again to resume from step-00000000"
    )


def test_the_best_checkpoint_stays_and_is_exported(
    encoded: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validation losses that rise after the second checkpoint, as of a model that over-fits."""
    recipe = recipe_of(
        encoded,
        tmp_path,
        "validation={every: 1, share: 0.05}",
        "run={save_every: 1, keep: 1, keep_best: 2, export: best, hang_seconds: null, tracking_uri: none}",
    )
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: 4.0}

    class Validated(Run):
        def _validate(self, done: int) -> None:
            self.validation_loss = losses[done]

    run = Validated(recipe, read_corpus(recipe), world, StopSignal())
    assert run() == ExitStatus.DONE
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in kept] == ["step-00000002", "step-00000003", "step-00000005"]
    assert [run.checkpoints.read(path).score for path in kept] == [1.0, 2.0, 4.0]
    assert "exporting step-00000002" in capsys.readouterr().out
    exported = load_checkpoint(tmp_path / "export", dtype=torch.float32).model.state_dict()
    best, last = (dict(read_tensors(path)) for path in (kept[0], kept[-1]))
    assert all(torch.equal(exported[name], values["ema"]) for name, values in best.items())
    assert any(not torch.equal(exported[name], values["ema"]) for name, values in last.items())
