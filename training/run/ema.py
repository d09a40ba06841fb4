"""The moving average of the weights, with a warm-up: it is short at first, so that initial weights fade early."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def ema_decay(decay: float, step: int) -> float:
    """What the average keeps of itself after step `step`, from 1: rises to `decay`."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def move_average(averages: Iterable[Tensor], weights: Iterable[Tensor], *, decay: float, step: int) -> None:
    """Moves each average towards its weight, in place, after step `step`, from 1."""
    kept = ema_decay(decay, step)
    for average, weight in zip(averages, weights, strict=True):
        average.lerp_(weight.detach(), 1 - kept)


class WeightAverage:
    """The average of a module that every rank holds whole; `tensors` are fp32, by the names of its state dict."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        """Follows the module's weights after step `step`, from 1."""
        weights = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
        move_average((self.tensors[name] for name in weights), weights.values(), decay=self.decay, step=step)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the average by another's `tensors`."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)

    def to(self, device: torch.device) -> None:
        """Moves the average to a device."""
        self.tensors = {name: value.to(device) for name, value in self.tensors.items()}
