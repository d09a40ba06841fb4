"""LocEnc: the latent frames of one patch to one vector (report 3.1, spec 2.3)."""

import torch
from torch import Tensor, nn

from model.config import VoxCPM2Config
from model.layers.attention import Bidirectional
from model.layers.transformer import MiniCPM


class LocEnc(nn.Module):
    """A learnt token reads the patch's frames through a bidirectional stack; its output is the patch's vector."""

    def __init__(self, config: VoxCPM2Config) -> None:
        super().__init__()
        stack = config.local_stack(config.encoder_config)
        self.special_token = nn.Parameter(torch.randn(1, 1, 1, stack.hidden_size))
        self.in_proj = nn.Linear(config.feat_dim, stack.hidden_size)
        self.encoder = MiniCPM(stack, max_positions=config.patch_size + 1)

    def forward(self, patches_APD: Tensor) -> Tensor:
        """[A, patch_size, feat_dim] to [A, hidden], each patch by itself."""
        frames_APC = self.in_proj(patches_APD)
        token_A1C = self.special_token[0].to(frames_APC.dtype).expand(frames_APC.shape[0], -1, -1)
        tokens_ATC = torch.cat([token_A1C, frames_APC], dim=1)
        result_AC: Tensor = self.encoder(tokens_ATC, Bidirectional(), keep=slice(0, 1))[:, 0]
        return result_AC
