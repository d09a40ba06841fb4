"""Weights, moments and average of a model under DeepSpeed by parameter name, in and out.

Each rank saves the stretches of parameters that it holds and reads those that it will hold, so a checkpoint is bound to
no ZeRO stage and number of ranks. DeepSpeed's own checkpoints are pickles bound to both.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from training.run.ema import move_average
from training.run.world import World
from voxmill.core.sharded_tensors import Fragment, ShardedTensors, Wanted

WEIGHT, AVERAGE = "weight", "ema"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of each parameter, besides its count of steps."""
Kinds = dict[str, Tensor]
"""Tensors of one parameter by kind: `weight`, `exp_avg`, `exp_avg_sq` and, with an average, `ema`."""


class ZeroState:
    """The state of one DeepSpeed engine whose optimizer is `torch.optim.AdamW`.

    Args:
        optimizer: what `deepspeed.initialize` returned for AdamW, wrapped around it.
        names: the trained parameters and their names.
        zero: ZeRO stage. dtype: in which the module computes; masters, moments and averages are fp32.
        ema: decay of the weights' moving average; None: without one. It lies where the moments lie, so it is divided
            over the ranks, saved and restored as they are.
    """

    def __init__(
        self,
        optimizer: Any,
        names: Mapping[nn.Parameter, str],
        world: World,
        *,
        zero: int,
        dtype: torch.dtype = torch.float32,
        ema: float | None = None,
    ) -> None:
        self.names, self.ema = dict(names), ema
        self.kinds = (WEIGHT, *MOMENTS) if ema is None else (WEIGHT, *MOMENTS, AVERAGE)
        self.steps = 0
        """Optimizer steps so far."""
        self._optimizer, self._world = optimizer, world
        self.own_masters = self._find_own_masters(zero, dtype)
        """Under ZeRO 0 each parameter's whole fp32 weight: in fp32 itself, in bf16 a copy. Empty where ZeRO divides."""
        self._make_moments()

    @property
    def adamw(self) -> torch.optim.AdamW:
        """PyTorch's optimizer inside DeepSpeed's wrappers."""
        optimizer = self._optimizer
        while not isinstance(optimizer, torch.optim.AdamW):
            optimizer = optimizer.optimizer
        return optimizer

    def set_learning_rate(self, rate: float) -> None:
        """Of the next step."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def count_step(self) -> None:
        """After each optimizer step: counts it and moves the average."""
        self.steps += 1
        if self.ema is not None:
            masters = self._masters()
            averages = [self.adamw.state[master][AVERAGE] for master in masters]
            move_average(averages, masters, decay=self.ema, step=self.steps)

    def tensors(self, kinds: Sequence[str] = ()) -> Iterator[tuple[str, Kinds]]:
        """(name, tensors by kind) of every trained parameter: whole, fp32, on the CPU. All ranks call it together.

        Args:
            kinds: only these; none named: all.
        """
        for parameter, name in self.names.items():
            whole = {kind: self.whole(parameter, kind) for kind in kinds or self.kinds}
            yield name, {kind: tensor.detach().float().cpu().clone() for kind, tensor in whole.items()}

    def tensors_on_first(self, kinds: Sequence[str] = ()) -> dict[str, Kinds]:
        """What `tensors` gives, on the first rank; {} on the others. All ranks call it together."""
        on_first: dict[str, Kinds] = {}
        for name, values in self.tensors(kinds):
            if self._world.is_first:
                on_first[name] = values
        return on_first

    def copied(self) -> list[Fragment]:
        """This rank's share of the state, copied into the memory of the CPU: those of all ranks are the whole state."""
        fragments = [
            Fragment(
                name=item.name,
                shape=item.shape,
                start=item.start,
                tensors={kind: _copied(tensor) for kind, tensor in item.tensors.items()},
            )
            for item in self._own()
        ]
        if self._world.device.type == "cuda":
            torch.cuda.synchronize(self._world.device)
        return fragments

    def restore(self, saved: ShardedTensors, steps: int) -> None:
        """Restores what all ranks `copied` after `steps` steps, in any stage and world, on all ranks together.

        Raises:
            UserError: a file is damaged, or lacks a parameter. OSError: it cannot be read.
        """
        with torch.no_grad():
            saved.read_into(
                Wanted(kind, item.name, item.start, tensor)
                for item in self._held()
                for kind, tensor in item.tensors.items()
            )
            self._compute_with_masters()
        self._forget_second_copy()
        self.steps = steps
        # AdamW corrects its moments by its own count.
        for state in self.adamw.state.values():
            if "step" in state:
                state["step"] = torch.full_like(torch.as_tensor(state["step"], dtype=torch.float32), float(steps))

    def _held(self) -> Iterator[Fragment]:
        """What this rank holds: the optimizer's own memory. Under ZeRO 0 that is all."""
        for parameter, name in self.names.items():
            if (master := self.own_masters.get(parameter)) is not None:
                tensors = {WEIGHT: master} | {kind: self._state_of(master)[kind] for kind in self.kinds[1:]}
                start, length, shape = 0, master.numel(), tuple(master.shape)
            elif hasattr(parameter, "ds_id"):
                # Equal parts of every parameter, the last ones filled up.
                state_of = self._optimizer._get_fp32_opt_state_partition
                keys = {kind: None if kind == WEIGHT else kind for kind in self.kinds}
                tensors = {
                    kind: state_of(parameter, release_swap_buffers=True, optim_state_key=key)[0]
                    for kind, key in keys.items()
                }
                size, shape = tensors[WEIGHT].numel(), tuple(parameter.ds_shape)  # type: ignore[attr-defined]
                start = size * self._optimizer._get_param_partition_rank(parameter)
                length = min(size, parameter.ds_numel - start)  # type: ignore[attr-defined]
            elif parameter._hp_mapping is not None:  # type: ignore[attr-defined]
                mapping = parameter._hp_mapping  # type: ignore[attr-defined]
                start, length = mapping.lp_fragment_address.start, mapping.lp_fragment_address.numel
                shape = tuple(parameter.shape)
                tensors = {k: mapping.get_hp_fragment(None if k == WEIGHT else k) for k in self.kinds}
            else:
                continue
            if length > 0:
                flat = {kind: tensor.detach().view(-1)[:length] for kind, tensor in tensors.items()}
                yield Fragment(name=name, shape=shape, start=start, tensors=flat)

    def _own(self) -> Iterator[Fragment]:
        """What this rank saves: all that it holds, or of what every rank holds an equal share."""
        if not self.own_masters:
            yield from self._held()
            return
        total = sum(master.numel() for master in self.own_masters.values())
        first, end = (total * rank // self._world.size for rank in (self._world.rank, self._world.rank + 1))
        place = 0
        for item in self._held():
            start, stop = max(first - place, 0), min(end - place, item.length)
            place += item.length
            if start < stop:
                tensors = {kind: tensor[start:stop] for kind, tensor in item.tensors.items()}
                yield Fragment(name=item.name, shape=item.shape, start=start, tensors=tensors)

    def _compute_with_masters(self) -> None:
        """Renews the weights that compute from the fp32 ones, as DeepSpeed does after a step; all ranks together."""
        optimizer = self._optimizer
        if self.own_masters:
            for parameter, master in self.own_masters.items():
                if parameter is not master:
                    parameter.copy_(master)
        elif hasattr(optimizer, "update_lp_params"):
            optimizer.update_lp_params()
        else:
            optimizer._partition_all_parameters()
            for group in range(len(optimizer.fp32_partitioned_groups_flat)):
                optimizer._reassign_or_swap_out_partitioned_parameters(group)
            if optimizer.persistent_parameters:
                optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
            optimizer.invalidate_secondary_tensor()

    def whole(self, parameter: nn.Parameter, kind: str) -> Tensor:
        """One tensor of a parameter: whole, fp32, on every rank."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if (master := self.own_masters.get(parameter)) is not None:
            return master if kind == WEIGHT else self._state_of(master)[kind]
        tensor: Tensor = (
            safe_get_full_fp32_param(parameter) if kind == WEIGHT else safe_get_full_optimizer_state(parameter, kind)
        )
        return tensor

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the module computes with the average of its weights, where there is one.

        All ranks enter together; no step may be taken inside.
        """
        if self.ema is None:
            yield
            return
        self._compute_with(AVERAGE)
        try:
            yield
        finally:
            self._compute_with(WEIGHT)

    @torch.no_grad()
    def _compute_with(self, kind: str) -> None:
        for parameter in self.names:
            if self.own_masters.get(parameter) is parameter:  # average and weight change places, and back
                average = self._state_of(parameter)[AVERAGE]
                kept = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(kept)
            else:
                self._write(parameter, self.whole(parameter, kind))
        self._forget_second_copy()

    def _forget_second_copy(self) -> None:
        """Under hpZ weights are gathered from a second copy, which DeepSpeed renews at its own steps only."""
        if hasattr(self._optimizer, "invalidate_secondary_tensor"):
            self._optimizer.invalidate_secondary_tensor()

    def _make_moments(self) -> None:
        """Zeros where AdamW makes them at its first step: there is a state to save and to restore from the start."""
        for master in self._masters():
            state = {kind: torch.zeros_like(master, requires_grad=False) for kind in MOMENTS}
            if self.ema is not None:
                state[AVERAGE] = master.detach().clone()
            self.adamw.state[master] = {"step": torch.tensor(0.0), **state}
        if hasattr(self._optimizer, "_lazy_init_hp_params_optimizer_state"):
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _state_of(self, master: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.adamw.state[master]
        return state

    def _masters(self) -> list[Tensor]:
        """The fp32 weights of this rank, to which AdamW's state belongs: flat parts, or whole ones under ZeRO 0."""
        names = ("single_partition_of_fp32_groups", "fp32_groups_flat_partition", "fp32_partitioned_groups_flat")
        flat = [part for name in names for part in getattr(self._optimizer, name, [])]
        return flat or list(self.own_masters.values())

    def _find_own_masters(self, zero: int, dtype: torch.dtype) -> dict[nn.Parameter, Tensor]:
        if zero:
            return {}
        if dtype == torch.float32:
            return {parameter: parameter for parameter in self.names}
        groups = zip(self._optimizer.fp16_groups, self._optimizer.fp32_groups, strict=True)
        return {parameter: master for pair in groups for parameter, master in zip(*pair, strict=True)}

    def _write(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Into the copy that computes, which DeepSpeed renews at a step only."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0, enabled=hasattr(parameter, "ds_id")):
            parameter.data.copy_(value)


def _copied(tensor: Tensor) -> Tensor:
    """On the CPU, in memory of its own; from a GPU into pinned memory, which `torch.cuda.synchronize` makes valid."""
    copy = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor, non_blocking=tensor.is_cuda)
