"""LocDiT: the velocity of one noisy patch (report 3.3.1, spec 2.6).

Eleven tokens at the released patch size: TSLM's vector, RALM's vector, the time, the previous clean patch, the noisy
patch. Patches are [N, patch_size, feat_dim] here; the released estimator has the last two the other way round.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VoxCPM2Config
from model.layers.attention import Bidirectional
from model.layers.transformer import MiniCPM


class TimeMLP(nn.Module):
    """Linear, SiLU, linear on a time embedding."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(size, size)
        self.linear_2 = nn.Linear(size, size)

    def forward(self, embedding_NC: Tensor) -> Tensor:
        result_NC: Tensor = self.linear_2(F.silu(self.linear_1(embedding_NC)))
        return result_NC


def time_embedding(time_N: Tensor, *, size: int) -> Tensor:
    """Sines then cosines of 1000 t, [N, size], wholly in the time's dtype as released (bf16 rounds the frequencies)."""
    half = size // 2
    index_C = torch.arange(half, device=time_N.device, dtype=time_N.dtype)
    frequency_C = torch.exp(index_C * -(math.log(10000) / (half - 1)))
    angle_NC = 1000 * time_N[:, None] * frequency_C
    return torch.cat((angle_NC.sin(), angle_NC.cos()), dim=-1)


class LocDiT(nn.Module):
    """The estimator: full attention inside one patch, none between patches."""

    def __init__(self, config: VoxCPM2Config) -> None:
        super().__init__()
        stack = config.local_stack(config.dit_config)
        size = stack.hidden_size
        self.size, self.patch_size = size, config.patch_size
        self.in_proj = nn.Linear(config.feat_dim, size)
        self.cond_proj = nn.Linear(config.feat_dim, size)
        self.out_proj = nn.Linear(size, config.feat_dim)
        self.time_mlp = TimeMLP(size)
        self.delta_time_mlp = TimeMLP(size)
        self.decoder = MiniCPM(stack, max_positions=3 + 2 * config.patch_size)

    def time_token(self, time_N: Tensor, span_N: Tensor, *, dtype: torch.dtype) -> Tensor:
        """The time's token [N, C]; `span_N` is t - r (0 outside mean mode, which still adds a learnt constant)."""
        time_NC = self.time_mlp(time_embedding(time_N, size=self.size).to(dtype))
        token_NC: Tensor = time_NC + self.delta_time_mlp(time_embedding(span_N, size=self.size).to(dtype))
        return token_NC

    def forward(self, noisy_NPD: Tensor, mu_NMC: Tensor, time_NC: Tensor, condition_NPD: Tensor) -> Tensor:
        """The velocity [N, P, D].

        Args:
            noisy_NPD: the patch on its path from noise (t = 1) to data (t = 0).
            mu_NMC: the two vectors from TSLM and RALM, [N, 2, C]; zeros where the guidance drops them.
            time_NC: from `time_token`; one row serves all patches.
            condition_NPD: the previous clean patch.
        """
        time_N1C = time_NC.expand(noisy_NPD.shape[0], -1)[:, None]
        tokens_NTC = torch.cat([mu_NMC, time_N1C, self.cond_proj(condition_NPD), self.in_proj(noisy_NPD)], dim=1)
        hidden_NPC = self.decoder(tokens_NTC, Bidirectional(), keep=slice(-self.patch_size, None))
        velocity_NPD: Tensor = self.out_proj(hidden_NPC)
        return velocity_NPD
