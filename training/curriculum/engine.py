"""The model under DeepSpeed: ZeRO 0 to 3 on CPU (gloo) or GPU (nccl).

Learning rate, loss scaling and finiteness are decided outside: DeepSpeed's own schedules and overflow checks differ
from stage to stage. AdamW is PyTorch's, since DeepSpeed's compiles for minutes and computes the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from cluster.deepspeed.files import read_deepspeed
from model.layers.rope import RotaryTable
from model.layers.transformer import compile_layers, recompute_layers
from model.lora import add_lora
from model.sequence.packing import PackedBatch
from model.voxcpm2 import VoxCPM2
from training.curriculum.recipe import Recipe
from training.run.world import World
from training.run.zero_state import ZeroState
from voxmill.core.errors import UserError

COMPILER = "inductor"
"""Backend of torch.compile where a recipe has `engine.compile`."""
RowLosses = tuple[Tensor, Tensor, Tensor]
"""(diffusion, stop) sums of a packed row, fp32 scalars, and each sample's sums, [S, 6] by `SAMPLE_SUMS`."""


class Losses(nn.Module):
    """The model as DeepSpeed calls it: tensors out, which ZeRO 3 looks for."""

    def __init__(self, model: VoxCPM2) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PackedBatch, generator: torch.Generator, progress: float) -> RowLosses:
        """Sums of a packed row."""
        # Not through the hooks of the model itself: ZeRO 3 would look for tensors in its dataclass, and it has no
        # weights that are not in a child.
        sums = self.model.forward(batch, generator=generator, progress=progress, by_sample=True)
        assert sums.samples_SK is not None
        return sums.diffusion, sums.stop, sums.samples_SK


def deepspeed_config(recipe: Recipe, world_size: int) -> dict[str, JsonValue]:
    """DeepSpeed's configuration: the file of the recipe's stage in `cluster/deepspeed/`, rows, precision and clipping.

    `world_size` divides the recipe's `rows`.

    Raises:
        UserError: there is no file of this stage with offload, or `engine.hpz` does not divide the ranks.
    """
    engine = recipe.engine
    if engine.hpz is not None and (world_size % engine.hpz or world_size == engine.hpz):
        raise UserError(
            f"engine.hpz = {engine.hpz}: {world_size} ranks are not several machines of {engine.hpz} ranks; "
            "set it to the ranks of one machine, or drop it"
        )
    values = read_deepspeed(engine.zero, offload=engine.offload, world=world_size, communication=engine.communication)
    return values | {
        "gradient_accumulation_steps": recipe.rows // world_size,
        "gradient_clipping": recipe.optimizer.clip,
        "bf16": {"enabled": engine.dtype == "bfloat16"},
    }


class Engine:
    """A model in training; `state` holds its weights, moments and average.

    With `recipe.lora` the adapters alone are trained: nothing else has a gradient, a moment, or a part in the state.
    """

    def __init__(self, model: VoxCPM2, recipe: Recipe, world: World) -> None:
        import deepspeed

        self.world, self.recipe = world, recipe
        self.dtype = torch.bfloat16 if recipe.engine.dtype == "bfloat16" else torch.float32
        self.losses = Losses(trainable(model, recipe))
        names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
        optimizer = torch.optim.AdamW(
            list(names),
            lr=0.0,
            betas=recipe.optimizer.betas,
            eps=recipe.optimizer.eps,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self._ds: Any
        self._ds, wrapped, _, _ = deepspeed.initialize(
            model=self.losses, optimizer=optimizer, config=deepspeed_config(recipe, world.size)
        )
        if recipe.engine.compile:
            compile_layers(model, backend=COMPILER)
        for module in self.losses.modules():
            if isinstance(module, RotaryTable):
                # The released trainer keeps them in fp32, too; DeepSpeed rounds all buffers.
                module.fill()
        self.state = ZeroState(
            wrapped, names, world, zero=recipe.engine.zero, dtype=self.dtype, ema=recipe.optimizer.ema
        )

    def forward(self, batch: PackedBatch, generator: torch.Generator, progress: float) -> RowLosses:
        """Sums of a row. `progress`: of the training, 0 to 1."""
        batch = batch.to(self.world.device, self.dtype)
        if self.recipe.lora is None or not self.recipe.lora.dropout:
            losses: RowLosses = self._ds(batch, generator, progress)
            return losses
        # Dropout uses the global generator alone: it gets the row's seed, so that any world drops the same.
        with torch.random.fork_rng([self.world.device] if self.world.device.type == "cuda" else []):
            torch.manual_seed(generator.initial_seed())
            losses = self._ds(batch, generator, progress)
            return losses

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, `forward` computes without gradients and dropout."""
        self._ds.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._ds.train()

    def backward(self, loss: Tensor) -> None:
        """Adds a row's gradient; `loss` is divided by global counts already.

        DeepSpeed averages over rows and ranks, which is undone here: a sum of sums stays one.
        """
        self._ds.backward(loss * (self.recipe.rows))

    def step(self, learning_rate: float) -> float:
        """Updates the weights after the last row of a step; returns the norm of the gradient before clipping."""
        self.state.set_learning_rate(learning_rate)
        gradients = [p.grad for p in self.state.own_masters if p.grad is not None]
        # DeepSpeed computes no norm where every rank holds whole gradients of its own.
        norm = torch.stack([g.norm() for g in gradients]).norm() if gradients else None
        self._ds.step()
        self.state.count_step()
        if norm is None:
            norm = self._ds.get_global_grad_norm()
        assert norm is not None, "DeepSpeed computes a norm in every stage that divides the optimizer"
        return float(norm)

    def row_done(self) -> None:
        """After every row but the last of a step."""
        self._ds.step()


def trainable(model: VoxCPM2, recipe: Recipe) -> VoxCPM2:
    """`model` itself, fp32, in training mode: with adapters and all else frozen where the recipe has `lora`.

    Raises:
        UserError: a target of the adapters names no layer.
    """
    model = model.float().train().requires_grad_(True)
    if recipe.lora is not None:
        # Every rank, and a restarted run, starts from the same adapters.
        with torch.random.fork_rng([]):
            torch.manual_seed(recipe.seed)
            add_lora(model, recipe.lora)
    recompute_layers(model, recipe.engine.activation_checkpointing)
    return model
