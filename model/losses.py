"""The two losses as sums and a count (report 3.5, spec 3.3-3.4).

A mean of means would weigh a patch by the company it keeps; whoever averages divides global sums by a global count.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossSums:
    """Sums over target patches. `diffusion`: flow-matching error per frame; `stop`: cross entropy; fp32 scalars."""

    diffusion: Tensor
    stop: Tensor
    num_patches: int
    num_frames: int

    def mean(self) -> tuple[Tensor, Tensor]:
        """(diffusion loss, stop loss) of these patches alone; zeros where there is no target."""
        return self.diffusion / max(self.num_frames, 1), self.stop / max(self.num_patches, 1)

    def total(self, *, diffusion: float = 1.0, stop: float = 1.0) -> Tensor:
        """The weighted sum of both means; weights 1.0 as released."""
        diffusion_loss, stop_loss = self.mean()
        return diffusion * diffusion_loss + stop * stop_loss


def loss_sums(flow_error_GP: Tensor, stop_logits_G2: Tensor, stop_G: Tensor) -> LossSums:
    """Sums of both losses; `stop_G` is 1 at the last patch of a target, else 0."""
    stop = F.cross_entropy(stop_logits_G2.float(), stop_G.long(), reduction="sum")
    return LossSums(flow_error_GP.sum(dtype=torch.float32), stop, stop_G.shape[0], flow_error_GP.numel())
