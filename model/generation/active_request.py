"""A request in a batch: its noise, its patches, and when it is finished (spec 4.2, 4.5)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from model.flow.sampler import start_noise
from model.generation.request import Settings
from model.sequence.layouts import Layout

Finish = Literal["stop", "length"]
"""The stop predictor ended the speech, or its limit did."""


@dataclass(eq=False)
class ActiveRequest:
    """A request in a batch and the patches generated so far; mutable, owned by whoever made it.

    `noise_NPD` and `forced_NPD` are for parity with another program: its start noise for each patch instead of
    `generator`'s, and its patches as the past instead of the generated ones (teacher forcing; `patches` still holds
    the generated ones).
    """

    layout: Layout
    """The open sequence: text, and the reference and prompt audio."""
    settings: Settings
    limit: int
    """Patches at most, 1 or more."""
    generator: torch.Generator | None
    """Draws the noise; None only with `noise_NPD`."""
    noise_NPD: Tensor | None = None
    forced_NPD: Tensor | None = None
    patches: list[Tensor] = field(default_factory=list)
    """[patch_size, feat_dim] each."""
    stops: list[bool] = field(default_factory=list)
    """The stop predictor's decision at each patch."""
    finish: Finish | None = None
    """Why the speech ended; None while the request is in progress."""

    def next_noise(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The start of the next patch, [1, patch_size, feat_dim] on the generator's device.

        Args:
            shape: (patch_size, feat_dim).

        Raises:
            ValueError: there is neither a generator nor noise from outside.
        """
        number = len(self.patches)
        if self.noise_NPD is not None:
            return self.noise_NPD[number : number + 1].to(dtype)
        if self.generator is None:
            raise ValueError("an active request needs a generator or noise_NPD")
        return start_noise(*shape, generator=self.generator, dtype=dtype)

    def accept(self, patch_PD: Tensor, *, stop: bool) -> Tensor:
        """Stores the next patch, decides whether it is the last, and returns the past of the one after it, [P, D]."""
        number = len(self.patches)
        self.patches.append(patch_PD)
        self.stops.append(stop)
        if stop and number > self.settings.min_len:
            self.finish = "stop"
        elif number + 1 >= self.limit:
            self.finish = "length"
        return patch_PD if self.forced_NPD is None else self.forced_NPD[number].to(patch_PD)
