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
class Row:
    """A request in a batch and what it has said so far.

    `noise_NPD` and `forced_NPD` are for parity with another program: its start noise a patch instead of `generator`'s,
    and its patches as the past instead of one's own (teacher forcing; `patches` still has one's own).
    """

    layout: Layout
    settings: Settings
    limit: int
    generator: torch.Generator | None
    noise_NPD: Tensor | None = None
    forced_NPD: Tensor | None = None
    patches: list[Tensor] = field(default_factory=list)
    """[patch_size, feat_dim] each."""
    stops: list[bool] = field(default_factory=list)
    """What the stop predictor said at each patch."""
    finish: Finish | None = None

    def next_noise(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The start of the next patch, [1, patch_size, feat_dim]."""
        number = len(self.patches)
        if self.noise_NPD is not None:
            return self.noise_NPD[number : number + 1].to(dtype)
        if self.generator is None:
            raise ValueError("a row needs a generator or its noise")
        return start_noise(*shape, generator=self.generator, dtype=dtype)

    def accept(self, patch_PD: Tensor, *, stop: bool) -> Tensor:
        """Takes the next patch, decides whether it is the last, and returns what the next one should see as its past."""
        number = len(self.patches)
        self.patches.append(patch_PD)
        self.stops.append(stop)
        if stop and number > self.settings.min_len:
            self.finish = "stop"
        elif number + 1 >= self.limit:
            self.finish = "length"
        return patch_PD if self.forced_NPD is None else self.forced_NPD[number].to(patch_PD)
