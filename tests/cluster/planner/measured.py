"""Bytes that live in a rank, found among all tensors of the process; run by torchrun, prints a JSON line a set-up.

torchrun --nproc-per-node 2 tests/cluster/planner/measured.py
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if __name__ == "__main__":
    # A script run by path has its own folder first on sys.path; the packages lie two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from cluster.deepspeed.files import read_buckets
from model.config import VoxCPM2Config
from model.presets import preset
from model.sequence.layouts import arrange
from model.sequence.packing import PackedBatch, pack
from model.voxcpm2 import VoxCPM2


def small_config() -> VoxCPM2Config:
    """The `small` preset with a small vocabulary: most of its weights are in the stacks, as at full size."""
    config = preset("small")
    return config.model_copy(update={"lm_config": config.lm_config.model_copy(update={"vocab_size": 640})})


def row(config: VoxCPM2Config, num_text: int, num_target: int) -> PackedBatch:
    """A row of one sample: num_text + 1 positions of text and num_target - 1 of audio, num_target targets."""
    shape = (config.patch_size, config.feat_dim)
    generator = torch.Generator().manual_seed(0)
    sample = arrange(
        [200] * num_text,
        target_GPD=torch.randn(num_target, *shape, generator=generator),
        closed=True,
        patch_shape=shape,
        max_length=config.max_length,
    )
    return pack([sample])


def storages(tensors: list[Tensor]) -> dict[int, int]:
    """Bytes of each storage, by its address."""
    found = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    return {storage.data_ptr(): storage.nbytes() for storage in found if storage.nbytes()}


def living() -> dict[int, int]:
    """Storages of all tensors that Python can reach, gradients too."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if isinstance(thing, Tensor)]
    gradients = [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    return storages(tensors + gradients)


def measure(world: Any, config: VoxCPM2Config, zero: int, dtype: str, offload: bool) -> dict[str, Any]:
    """Trains two steps; the most bytes beside the buckets and after a step, and those of the buckets."""
    from training.curriculum.engine import Engine
    from training.curriculum.recipe import load_recipe

    recipe = load_recipe(
        "tiny_stage2",
        [f"engine.zero={zero}", f"engine.dtype={dtype}", f"engine.offload={offload}", f"rows={2 * world.size}"],
    )
    bucket = read_buckets(zero, offload=offload).reduce_bucket_size
    sizes = {bucket * size for size in (2, 4)}
    nothing = set(living())
    engine = Engine(VoxCPM2(config), recipe, world)
    batch = row(config, 8, 8)
    buffers = set(storages(list(engine.losses.buffers())))

    def held() -> tuple[int, int]:
        now = {where: size for where, size in living().items() if where not in nothing | buffers}
        buckets = sum(size for size in now.values() if size in sizes)
        return sum(now.values()) - buckets, buckets

    before = buckets = 0
    for step in range(2):
        # The first step makes what later ones find; the second is measured. Two rows a step: gradients are added up.
        for last in (False, True):
            diffusion, stop, _ = engine.forward(batch, torch.Generator().manual_seed(0), 0.0)
            engine.backward((diffusion + stop) / 100)
            del diffusion, stop
            if step:
                before, buckets = max((before, buckets), held())
            if not last:
                engine.row_done()
        engine.step(1e-5)
    return {
        "zero": zero,
        "dtype": dtype,
        "offload": offload,
        "most": before,
        "after_step": held()[0],
        "buckets": buckets,
        "parameters": sum(p.numel() for p in VoxCPM2(config).parameters()),
    }


def main() -> None:
    """Measures ZeRO 0 to 3 in both precisions on this rank; rank 0 prints."""
    from training.run.world import join_world

    config = small_config()
    with join_world() as world:
        for dtype in ("float32", "bfloat16"):
            for zero in (0, 1, 2, 3):
                found = measure(world, config, zero, dtype, offload=False)
                if world.rank == 0:
                    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
