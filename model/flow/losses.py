"""The two losses as sums and a count (report 3.5, spec 3.3-3.4).

A mean of means would weigh a patch by the size of its batch; whoever averages divides global sums by a global count.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_SUMS = ("diffusion", "stop", "num_patches", "stops_found", "stops_false", "stops_missed")
"""Columns of `sample_sums`: both losses' sums, the number of target patches, and how often the stop predictor stopped
at a last patch, stopped before it, and continued at it."""


@dataclass(frozen=True)
class LossSums:
    """Sums over target patches. `diffusion`: flow-matching error per frame; `stop`: cross entropy; fp32 scalars."""

    diffusion: Tensor
    stop: Tensor
    num_patches: int
    num_frames: int
    samples_SK: Tensor | None = None
    """Each packed sample's part of these sums, [S, 6] by `SAMPLE_SUMS`, fp64 without a gradient; None: not wanted."""

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


@torch.no_grad()
def sample_sums(
    flow_error_GP: Tensor, stop_logits_G2: Tensor, stop_G: Tensor, sample_G: Tensor, *, num_samples: int
) -> Tensor:
    """The sums of each sample, [S, 6] by `SAMPLE_SUMS`, fp64; `sample_G` is the sample of each target patch."""
    logits_G2, is_last_G = stop_logits_G2.float(), stop_G.bool()
    stops_G = logits_G2.argmax(dim=-1).bool()
    columns_GK = torch.stack(
        [
            flow_error_GP.sum(dim=-1, dtype=torch.float64),
            F.cross_entropy(logits_G2, stop_G.long(), reduction="none").double(),
            torch.ones_like(stop_G, dtype=torch.float64),
            (stops_G & is_last_G).double(),
            (stops_G & ~is_last_G).double(),
            (~stops_G & is_last_G).double(),
        ],
        dim=1,
    )
    return columns_GK.new_zeros(num_samples, len(SAMPLE_SUMS)).index_add_(0, sample_G, columns_GK)
