"""Finite scalar quantisation of TSLM's hidden states (report 3.1 and 3.3.1, spec 2.4)."""

import torch
from torch import Tensor, nn


class FSQ(nn.Module):
    """tanh, rounded to multiples of 1 / scale, with a straight-through gradient. Scale 9 means up to 19 levels."""

    def __init__(self, size: int, *, latent: int, scale: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(size, latent)
        self.out_proj = nn.Linear(latent, size)
        self.scale = scale

    def forward(self, hidden_NC: Tensor) -> Tensor:
        """[..., C] to [..., C]."""
        bounded = torch.tanh(self.in_proj(hidden_NC))
        rounded = torch.round(bounded * self.scale) / self.scale
        if torch.is_grad_enabled():
            rounded = bounded + (rounded - bounded).detach()
        result_NC: Tensor = self.out_proj(rounded)
        return result_NC
