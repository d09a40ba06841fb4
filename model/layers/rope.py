"""Rotary positions with longrope factors (report 3.3.1, spec 2.1).

The tables are buffers that no checkpoint stores. They follow the module's dtype on purpose: the released model rounds
them to bf16 at inference and keeps them in fp32 in training, and equality with it needs the same.
"""

import math

import torch
from torch import Tensor, nn

from model.config import LanguageModelConfig

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine at each token's position, [..., 1, head_dim]."""


class RotaryTable(nn.Module):
    """Cosines and sines of positions 0 .. `length` - 1, [length, head_dim] each."""

    cos_LD: Tensor
    sin_LD: Tensor

    def __init__(self, config: LanguageModelConfig, *, length: int) -> None:
        super().__init__()
        self.config, self.length = config, length
        self.register_buffer("cos_LD", torch.empty(length, config.head_dim), persistent=False)
        self.register_buffer("sin_LD", torch.empty(length, config.head_dim), persistent=False)
        self.fill()

    @torch.no_grad()
    def fill(self) -> None:
        """Computes the tables on their device in fp32; call it again after `to_empty`."""
        device = self.cos_LD.device
        if device.type == "meta":
            return
        cos_LD, sin_LD = rotary_table(self.config, length=self.length)
        self.cos_LD, self.sin_LD = cos_LD.to(device), sin_LD.to(device)

    def forward(self, positions_N: Tensor) -> Rotation:
        """The rotation at `positions_N` (any shape, 0 <= position < length)."""
        return self.cos_LD[positions_N].unsqueeze(-2), self.sin_LD[positions_N].unsqueeze(-2)

    def first(self, length: int) -> Rotation:
        """The rotation at positions 0 .. length - 1 without a gather."""
        return self.cos_LD[:length].unsqueeze(-2), self.sin_LD[:length].unsqueeze(-2)


def rotary_table(config: LanguageModelConfig, *, length: int) -> tuple[Tensor, Tensor]:
    """fp32 cosines and sines [length, head_dim]. The factors are chosen by the configuration, never by `length`."""
    scaling = config.rope_scaling
    original, longest = scaling.original_max_position_embeddings, config.max_position_embeddings
    factors = scaling.long_factor if longest > original else scaling.short_factor
    magnitude = math.sqrt(1 + math.log(longest / original) / math.log(original))
    pairs_D = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")
    frequency_D = 1.0 / config.rope_theta ** (pairs_D / config.head_dim)
    factor_D = torch.tensor(factors, dtype=torch.float32, device="cpu")
    positions_L = torch.arange(length, dtype=torch.float32, device="cpu")
    angle_LD = torch.outer(positions_L, 1.0 / factor_D) * frequency_D
    angle_LD = torch.cat([angle_LD, angle_LD], dim=-1)
    return angle_LD.cos() * magnitude, angle_LD.sin() * magnitude


def rotate(heads_NHD: Tensor, rotation: Rotation) -> Tensor:
    """Turns each head by its token's rotation: channel i pairs with i + D/2, fp32 inside, the input's dtype out."""
    cos, sin = rotation
    if heads_NHD.dtype != torch.float32:
        return rotate(heads_NHD.float(), (cos.float(), sin.float())).to(heads_NHD.dtype)
    first, second = heads_NHD.chunk(2, dim=-1)
    return heads_NHD * cos + torch.cat((-second, first), dim=-1) * sin
