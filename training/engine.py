"""DeepSpeed under one roof: ZeRO 0 to 3 on CPU (gloo) or GPU (nccl), with everything that a checkpoint needs in view.

Learning rate, loss scaling and finiteness are decided outside: DeepSpeed's own schedules and overflow checks differ
from stage to stage. AdamW is PyTorch's, since DeepSpeed's compiles for minutes and computes the same.
"""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.packing import PackedBatch
from model.rope import RotaryTable
from model.voxcpm2 import VoxCPM2
from training.recipe import Recipe

MOMENTS = ("exp_avg", "exp_avg_sq")


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
    """Joins the processes that `torchrun` or `deepspeed` started; alone where none did.

    The variables RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are those of torch.distributed.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    for name, value in (("RANK", "0"), ("LOCAL_RANK", os.environ.get("RANK", "0")), ("WORLD_SIZE", "1")):
        os.environ.setdefault(name, value)
    if "MASTER_PORT" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(probe.getsockname()[1])
    import deepspeed

    cuda = torch.cuda.is_available()
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
        dist.destroy_process_group()


def deepspeed_config(recipe: Recipe, world: int) -> dict[str, Any]:
    """What DeepSpeed is told; the recipe's `rows` divide by `world`."""
    zero: dict[str, Any] = {"stage": recipe.engine.zero}
    if recipe.engine.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": recipe.rows // world,
        "gradient_clipping": recipe.optimizer.clip,
        "zero_optimization": zero,
        "bf16": {"enabled": recipe.engine.dtype == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


class Engine:
    """A model in training. State goes in and out whole, parameter by parameter, whatever the stage and the world."""

    def __init__(self, model: VoxCPM2, recipe: Recipe, world: World) -> None:
        import deepspeed

        self.world, self.recipe = world, recipe
        self.dtype = torch.bfloat16 if recipe.engine.dtype == "bfloat16" else torch.float32
        self.losses = Losses(model.float().train().requires_grad_(True))
        self._names = {parameter: name for name, parameter in model.named_parameters()}
        optimizer = torch.optim.AdamW(
            self.losses.parameters(), lr=0.0, betas=recipe.optimizer.betas, eps=recipe.optimizer.eps,
            weight_decay=recipe.optimizer.weight_decay,
        )  # fmt: skip
        self._ds, self._optimizer, _, _ = deepspeed.initialize(
            model=self.losses, optimizer=optimizer, config=deepspeed_config(recipe, world.size)
        )
        for module in self.losses.modules():
            if isinstance(module, RotaryTable):
                # The released trainer keeps them in fp32, too; DeepSpeed rounds all buffers.
                module.fill()
        self._make_moments()

    def forward(self, batch: PackedBatch, generator: torch.Generator, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """(diffusion, stop) sums of a row, and each sample's."""
        return self._ds(batch.to(self.world.device, self.dtype), generator, progress)

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
        gradients = [p.grad for p in self._names if _is_plain(p) and p.grad is not None]
        # DeepSpeed tells no norm where every rank holds whole gradients of its own.
        norm = torch.stack([g.norm() for g in gradients]).norm() if gradients else None
        self._ds.step()
        found = self._ds.get_global_grad_norm() if norm is None else norm
        assert found is not None, "DeepSpeed computes a norm in every stage that divides the optimizer"
        return float(found)

    def row_done(self) -> None:
        """After every row but the last of a step."""
        self._ds.step()

    def _make_moments(self) -> None:
        """Zeros where AdamW makes them at its first step, so that there is a state to save and to fill from the start."""
        for name in ("single_partition_of_fp32_groups", "fp32_groups_flat_partition", "fp32_partitioned_groups_flat"):
            for flat in getattr(self._optimizer, name, []):
                zeros = {key: torch.zeros_like(flat) for key in MOMENTS}
                self._inner().state[flat] = {"step": torch.tensor(0.0), **zeros}
        if hasattr(self._optimizer, "_lazy_init_hp_params_optimizer_state"):
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _inner(self) -> torch.optim.Optimizer:
        optimizer: Any = self._optimizer
        while not isinstance(optimizer, torch.optim.AdamW):
            optimizer = optimizer.optimizer
        return optimizer

    def set_count(self, count: int) -> None:
        """AdamW's own count of steps, which corrects its moments."""
        for state in self._inner().state.values():
            if "step" in state:
                state["step"] = torch.full_like(torch.as_tensor(state["step"], dtype=torch.float32), float(count))

    def state(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """(name, {weight, exp_avg, exp_avg_sq}) of every parameter, whole, fp32; called by all ranks together."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        for parameter, name in self._names.items():
            if _is_plain(parameter):
                found = {"weight": parameter.detach().float()}
                state = self._inner().state.get(parameter, {})
                found |= {key: state.get(key, torch.zeros_like(found["weight"])) for key in MOMENTS}
            else:
                found = {"weight": safe_get_full_fp32_param(parameter)}
                found |= {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
            yield name, {key: tensor.detach().float().cpu().clone() for key, tensor in found.items()}

    def restore(self, tensors: Iterable[tuple[str, dict[str, Tensor]]], count: int) -> None:
        """Puts back what `state` gave, in any stage and world; called by all ranks together."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        parameters = {name: parameter for parameter, name in self._names.items()}
        for name, found in tensors:
            parameter, values = parameters.pop(name), {key: t.to(self.world.device) for key, t in found.items()}
            if _is_plain(parameter):
                with torch.no_grad():
                    parameter.copy_(values["weight"])
                moments = {key: values[key] for key in MOMENTS}
                self._inner().state[parameter] = {"step": torch.tensor(float(count)), **moments}
            else:
                safe_set_full_fp32_param(parameter, values["weight"])
                # The copy that computes is only renewed by a step.
                with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0, enabled=hasattr(parameter, "ds_id")):
                    parameter.data.copy_(values["weight"])
                for key in MOMENTS:
                    safe_set_full_optimizer_state(parameter, values[key], key)
        assert not parameters, f"not in the checkpoint: {sorted(parameters)[:3]}"
        self.set_count(count)


def _is_plain(parameter: nn.Parameter) -> bool:
    """Whether it is its own master weight, as under ZeRO 0 in fp32."""
    # A rank that holds no part of a divided parameter has the attribute, too, as None.
    return not hasattr(parameter, "ds_id") and not hasattr(parameter, "_hp_mapping")
