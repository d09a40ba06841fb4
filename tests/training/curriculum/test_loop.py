"""A run between its steps, seen from inside one process."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint
from samples.fabricate import CHECKPOINT
from training.curriculum.corpus import read_corpus
from training.curriculum.loop import Run
from training.curriculum.recipe import load_recipe
from training.run.checkpoints import read_tensors
from training.run.stop_signal import StopSignal
from training.run.world import World
from voxmill.core.errors import ExitStatus


def test_the_best_checkpoint_stays_and_is_exported(
    encoded: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validation losses that rise after the second checkpoint, as of a model that over-fits."""
    recipe = load_recipe(
        "tiny_finetune_full",
        [
            f"datasets.main.path={encoded}",
            f"init={CHECKPOINT}",
            f"run.out={tmp_path}",
            "steps=5",
            "rows=1",
            "optimizer.warmup_steps=1",
            "validation={every: 1, share: 0.05}",
            "run={save_every: 1, keep: 1, keep_best: 2, export: best, hang_seconds: null, tracking_uri: none}",
            f"run.out={tmp_path}",
        ],
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
