"""DeepSpeed under one roof: ZeRO 0 to 3 on CPU (gloo) or GPU (nccl), with everything that a checkpoint needs in view.

Learning rate, loss scaling and finiteness are decided outside: DeepSpeed's own schedules and overflow checks differ
from stage to stage. AdamW is PyTorch's, since DeepSpeed's compiles for minutes and computes the same.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cluster.deepspeed.files import read_deepspeed
from model.layers.rope import RotaryTable
from model.layers.transformer import MiniCPM
from model.lora import add_lora
from model.sequence.packing import PackedBatch
from model.voxcpm2 import VoxCPM2
from training.curriculum.recipe import Recipe
from voxmill.core.local_ray import free_port

MOMENTS = ("exp_avg", "exp_avg_sq")
AVERAGE = "ema"
"""The moving average of the weights lies where the moments lie, so it is divided, saved and restored as they are."""


class Losses(nn.Module):
    """The model as DeepSpeed sees it: tensors out, so that ZeRO 3 finds them."""

    def __init__(self, model: VoxCPM2) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PackedBatch, generator: torch.Generator, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """(diffusion, stop) sums of a packed row, fp32 scalars, and each sample's, [S, 6] by `SAMPLE_SUMS`."""
        # Not through the hooks of the model itself: ZeRO 3 would look for tensors in its dataclass, and it has no weights
        # that are not in a child.
        sums = self.model.forward(batch, generator=generator, progress=progress, by_sample=True)
        assert sums.samples_SK is not None
        return sums.diffusion, sums.stop, sums.samples_SK


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int
    size: int
    device: torch.device


@contextmanager
def join_world() -> Iterator[World]:
    """Joins the processes that `torchrun`, `deepspeed` or Ray Train started; alone where none did.

    The variables RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are those of torch.distributed.
    """
    # Ray Train has joined already; with gloo, where its workers were given no GPU.
    joined = dist.is_initialized()
    cuda = torch.cuda.is_available() and not (joined and dist.get_backend() == "gloo")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    for name, value in (("RANK", "0"), ("LOCAL_RANK", os.environ.get("RANK", "0")), ("WORLD_SIZE", "1")):
        os.environ.setdefault(name, value)
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(free_port())
    import deepspeed

    if not cuda:
        # An extra for communication inside one CPU machine that DeepSpeed would compile for most of a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", verbose=False)
    try:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if not joined:
            dist.destroy_process_group()


def deepspeed_config(recipe: Recipe, world: int) -> dict[str, Any]:
    """What DeepSpeed is told: the file of the recipe's stage in `cluster/deepspeed/`, rows, precision and clipping.

    The recipe's `rows` divide by `world`.

    Raises:
        UserError: there is no file of this stage with offload.
    """
    told = read_deepspeed(recipe.engine.zero, offload=recipe.engine.offload)
    return told | {
        "gradient_accumulation_steps": recipe.rows // world,
        "gradient_clipping": recipe.optimizer.clip,
        "bf16": {"enabled": recipe.engine.dtype == "bfloat16"},
    }


class Engine:
    """A model in training. State goes in and out whole, parameter by parameter, whatever the stage and the world.

    With `recipe.lora` the adapters alone are trained: nothing else has a gradient, a moment, or a place in the state.
    """

    def __init__(self, model: VoxCPM2, recipe: Recipe, world: World) -> None:
        import deepspeed

        self.world, self.recipe = world, recipe
        self.dtype = torch.bfloat16 if recipe.engine.dtype == "bfloat16" else torch.float32
        self.losses = Losses(trainable(model, recipe))
        self._names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._keys = MOMENTS if recipe.optimizer.ema is None else (*MOMENTS, AVERAGE)
        self._count = 0
        optimizer = torch.optim.AdamW(
            list(self._names),
            lr=0.0,
            betas=recipe.optimizer.betas,
            eps=recipe.optimizer.eps,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self._ds, self._optimizer, _, _ = deepspeed.initialize(
            model=self.losses, optimizer=optimizer, config=deepspeed_config(recipe, world.size)
        )
        for module in self.losses.modules():
            if isinstance(module, RotaryTable):
                # The released trainer keeps them in fp32, too; DeepSpeed rounds all buffers.
                module.fill()
        self._own = self._own_masters()
        self._make_moments()

    def forward(self, batch: PackedBatch, generator: torch.Generator, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """(diffusion, stop) sums of a row, and each sample's."""
        batch = batch.to(self.world.device, self.dtype)
        if self.recipe.lora is None or not self.recipe.lora.dropout:
            return self._ds(batch, generator, progress)
        # Dropout knows the global generator alone: it is given the row's seed, so that any world drops the same.
        with torch.random.fork_rng([self.world.device] if self.world.device.type == "cuda" else []):
            torch.manual_seed(generator.initial_seed())
            return self._ds(batch, generator, progress)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """The model as it is now, without gradients and dropout: `forward` may be called, nothing is learned."""
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

    def step(self, rate: float) -> float:
        """Moves the weights after the last row of a step; returns the norm of the gradient before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        gradients = [p.grad for p in self._own if p.grad is not None]
        # DeepSpeed tells no norm where every rank holds whole gradients of its own.
        norm = torch.stack([g.norm() for g in gradients]).norm() if gradients else None
        self._ds.step()
        self._count += 1
        self._average()
        found = self._ds.get_global_grad_norm() if norm is None else norm
        assert found is not None, "DeepSpeed computes a norm in every stage that divides the optimizer"
        return float(found)

    def row_done(self) -> None:
        """After every row but the last of a step."""
        self._ds.step()

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the average towards the weights. It is short at first, so that what a run began with fades early."""
        if self.recipe.optimizer.ema is not None:
            decay = min(self.recipe.optimizer.ema, (1 + self._count) / (10 + self._count))
            for master in self._masters():
                self._inner().state[master][AVERAGE].lerp_(master, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model computes with the moving average of its weights, where the recipe has one.

        Called by all ranks together; no step may be taken inside.
        """
        if self.recipe.optimizer.ema is None:
            yield
            return
        self._compute_with(AVERAGE)
        try:
            yield
        finally:
            self._compute_with("weight")

    @torch.no_grad()
    def _compute_with(self, kind: str) -> None:
        """Gives the copy that computes the averages or the weights."""
        for parameter in self._names:
            if self._own.get(parameter) is parameter:  # the average and the weight change places, and back
                average = self._inner().state[parameter][AVERAGE]
                kept = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(kept)
            else:
                self._write(parameter, self._whole(parameter, kind))

    def _make_moments(self) -> None:
        """Zeros where AdamW makes them at its first step, so that there is a state to save and to fill from the start."""
        for master in self._masters():
            state = {key: torch.zeros_like(master, requires_grad=False) for key in MOMENTS}
            if AVERAGE in self._keys:
                state[AVERAGE] = master.detach().clone()
            self._inner().state[master] = {"step": torch.tensor(0.0), **state}
        if hasattr(self._optimizer, "_lazy_init_hp_params_optimizer_state"):
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _masters(self) -> list[Tensor]:
        """The fp32 weights of this rank, to which AdamW's state belongs: flat parts, or whole ones under ZeRO 0."""
        names = ("single_partition_of_fp32_groups", "fp32_groups_flat_partition", "fp32_partitioned_groups_flat")
        return [flat for name in names for flat in getattr(self._optimizer, name, [])] or list(self._own.values())

    def _own_masters(self) -> dict[nn.Parameter, Tensor]:
        """Under ZeRO 0 each parameter's whole fp32 weight: in fp32 itself, in bf16 a copy. Empty where ZeRO divides."""
        if self.recipe.engine.zero:
            return {}
        if self.dtype == torch.float32:
            return {parameter: parameter for parameter in self._names}
        groups = zip(self._optimizer.fp16_groups, self._optimizer.fp32_groups, strict=True)
        return {parameter: master for pair in groups for parameter, master in zip(*pair, strict=True)}

    def _inner(self) -> torch.optim.Optimizer:
        optimizer: Any = self._optimizer
        while not isinstance(optimizer, torch.optim.AdamW):
            optimizer = optimizer.optimizer
        return optimizer

    def set_count(self, count: int) -> None:
        """AdamW's own count of steps, which corrects its moments."""
        self._count = count
        for state in self._inner().state.values():
            if "step" in state:
                state["step"] = torch.full_like(torch.as_tensor(state["step"], dtype=torch.float32), float(count))

    def _whole(self, parameter: nn.Parameter, kind: str) -> Tensor:
        """The weight or another state of a parameter, whole, fp32, on every rank."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if (master := self._own.get(parameter)) is not None:
            return master if kind == "weight" else self._inner().state[master][kind]
        if kind == "weight":
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, kind)

    def _write(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Into the copy that computes, which else is only renewed by a step."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0, enabled=hasattr(parameter, "ds_id")):
            parameter.data.copy_(value)

    def state(self, kinds: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """(name, {weight, exp_avg, exp_avg_sq, ema}) of every trained parameter, whole, fp32; `ema` where there is one.

        Called by all ranks together. `kinds`: only these.
        """
        for parameter, name in self._names.items():
            found = {kind: self._whole(parameter, kind) for kind in kinds or ("weight", *self._keys)}
            yield name, {kind: tensor.detach().float().cpu().clone() for kind, tensor in found.items()}

    def restore(self, tensors: Iterable[tuple[str, dict[str, Tensor]]], count: int) -> None:
        """Puts back what `state` gave, in any stage and world; called by all ranks together."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        parameters = {name: parameter for parameter, name in self._names.items()}
        for name, found in tensors:
            parameter, values = parameters.pop(name), {key: t.to(self.world.device) for key, t in found.items()}
            if (master := self._own.get(parameter)) is not None:
                with torch.no_grad():
                    master.copy_(values["weight"])
                    parameter.copy_(values["weight"])
                    for key in self._keys:
                        self._inner().state[master][key].copy_(values[key])
            else:
                safe_set_full_fp32_param(parameter, values["weight"])
                self._write(parameter, values["weight"])
                for key in self._keys:
                    safe_set_full_optimizer_state(parameter, values[key], key)
        assert not parameters, f"not in the checkpoint: {sorted(parameters)[:3]}"
        self.set_count(count)


def trainable(model: VoxCPM2, recipe: Recipe) -> VoxCPM2:
    """`model` itself, fp32, in training mode: with adapters and all else frozen where the recipe has `lora`.

    Raises:
        UserError: a target of the adapters names no layer.
    """
    model = model.float().train().requires_grad_(True)
    if recipe.lora is not None:
        # Every rank, and a run begun anew, starts from the same adapters.
        with torch.random.fork_rng([]):
            torch.manual_seed(recipe.seed)
            add_lora(model, recipe.lora)
    for module in model.modules():
        if isinstance(module, MiniCPM):
            module.recompute = recipe.engine.activation_checkpointing
    return model
