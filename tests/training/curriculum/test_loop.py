"""A run between its steps, seen from inside one process."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint
from samples.fabricate import CHECKPOINT
from tests.support.runs import metrics
from training.curriculum.corpus import read_corpus
from training.curriculum.loop import Run
from training.curriculum.recipe import Recipe, load_recipe
from training.run.stop_signal import StopSignal
from training.run.world import World
from voxmill.core.errors import ExitStatus, JobError, UserError, status_and_line
from voxmill.core.sharded_tensors import ShardedTensors

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


def test_what_comes_may_change_and_is_written_down_and_what_came_may_not(
    encoded: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = recipe_of(encoded, tmp_path, "run.save_every=1", "steps=2")
    assert Run(first, read_corpus(first), world, StopSignal())() == ExitStatus.DONE
    changed = ("steps=4", "health.spike=9", "loss.stop=0.5", "optimizer.warmup_steps=0")
    second = recipe_of(encoded, tmp_path, "run.save_every=1", *changed)
    run = Run(second, read_corpus(second), world, StopSignal())
    assert run() == ExitStatus.DONE and run.step == 4
    saved = run.checkpoints.read(run.checkpoints.paths()[0]).state.changes
    assert {line.rpartition(": ")[0] for line in saved} == {
        "step 2: health.spike",
        "step 2: loss.stop",
        "step 2: optimizer.warmup_steps",
        "step 2: steps",
    }
    assert "loss.stop: 1.0 -> 0.5" in capsys.readouterr().out
    third = recipe_of(encoded, tmp_path, "packing.window=2", "steps=6")
    with pytest.raises(UserError, match=r"another recipe \(packing.window"):
        Run(third, read_corpus(third), world, StopSignal())()


def test_the_loss_is_the_weighted_sum(encoded: Path, world: World, tmp_path: Path) -> None:
    recipe = recipe_of(encoded, tmp_path, "steps=2", "loss={diffusion: 2, stop: 0.25}")
    run = Run(recipe, read_corpus(recipe), world, StopSignal())
    assert run() == ExitStatus.DONE
    line = metrics(tmp_path)[0]
    assert line["loss"] == pytest.approx(2 * line["diffusion"] + 0.25 * line["stop"])
    with pytest.raises(UserError, match="nothing would be trained"):
        recipe_of(encoded, tmp_path, "loss={diffusion: 0, stop: 0}")


def test_a_run_that_has_died_ends_with_the_way_back_and_is_not_exported(
    encoded: Path, world: World, tmp_path: Path
) -> None:
    """At such a learning rate every loss is finite, and the weights end where nothing is learnt."""
    lethal = ("optimizer.learning_rate=0.5", "steps=60", "health={dead_after: 8, spike: null}")
    recipe = recipe_of(encoded, tmp_path, *lethal, "run.save_every=10", "run.keep=9")
    run = Run(recipe, read_corpus(recipe), world, StopSignal())
    with pytest.raises(JobError, match=r"the run has died: the .* of the last 8 steps is") as caught:
        run()
    assert "lower optimizer.learning_rate" in status_and_line(caught.value)[1]
    assert not (tmp_path / "export").exists()


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
    best, last = (dict(ShardedTensors(path).whole("ema")) for path in (kept[0], kept[-1]))
    assert all(torch.equal(exported[name], average) for name, average in best.items())
    assert any(not torch.equal(exported[name], average) for name, average in last.items())
