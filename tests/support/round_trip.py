"""A checkpoint into engines of several ZeRO stages and out again: `round_trip.py DATASET FROM TO STAGES`, on each rank.

Of each stage the state that was read is saved as `TO/step-STAGE`, and the weights that compute are compared with it.
"""

import sys
from pathlib import Path

import deepspeed
import torch

from model.checkpoint import load_model
from model.config import read_config
from samples.fabricate import CHECKPOINT
from training.curriculum.engine import Engine
from training.curriculum.recipe import load_recipe
from training.run.checkpoints import Checkpoints
from training.run.world import join_world
from voxmill.core.sharded_tensors import ShardedTensors


def main(dataset: str, source: str, target: str, stages: str) -> None:
    saved = ShardedTensors(Path(source))
    with join_world("cpu") as world:
        checkpoints = Checkpoints(Path(target), object, keep=9, world=world)
        for zero in map(int, stages):
            settings = [f"datasets.main.path={dataset}", f"init={CHECKPOINT}", "rows=4", f"engine.zero={zero}"]
            recipe = load_recipe("tiny_finetune_full", [*settings, "optimizer.ema=0.9"])
            engine = Engine(load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32), recipe, world)
            engine.state.restore(saved, 5)
            weights = dict(saved.whole("weight"))
            for parameter, name in engine.state.names.items():
                with deepspeed.zero.GatheredParameters(parameter, enabled=hasattr(parameter, "ds_id")):
                    assert torch.equal(parameter.detach(), weights[name]), (zero, name)
            fragments = engine.state.copied()
            total = world.sums([sum(fragment.num_bytes for fragment in fragments)])[0]
            assert total == sum(4 * 4 * weight.numel() for weight in weights.values()), (zero, total)
            checkpoints.save(zero, lambda part, fragments=fragments: part.add_tensors(fragments), {})  # type: ignore[misc]
            checkpoints.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
