"""Losses of AudioVAE: multi-scale mel, waveform, KL, and the discriminators' (LSGAN with feature matching, as DAC).

Every loss is per row first, [B], limited to the row's own band. The batch's loss is the mean over rows, so the number
of ranks that share a batch changes nothing.
"""

import torch
from torch import Tensor, nn

from model.codec.mel_distance import MelDistance, band_limit
from training.codec.config import VAETrainConfig


class ReconstructionLoss(nn.Module):
    """Distances of decoded audio from its target, both limited to the source's band."""

    def __init__(self, config: VAETrainConfig, sample_rate: int) -> None:
        super().__init__()
        self.mel = MelDistance(sample_rate, num_mels=config.loss.num_mels, windows=config.loss.mel_windows)

    def forward(self, decoded_BT: Tensor, target_BT: Tensor, nyquist_B: Tensor) -> dict[str, Tensor]:
        """Means over the rows. `mel`: sum over scales of mean |log10| differences; `waveform`: mean |difference|."""
        return {
            "mel": self.mel(decoded_BT, target_BT, nyquist_B).mean(),
            "waveform": (decoded_BT - target_BT).abs().mean(),
        }


def within_band(audio_BT: Tensor, rate_B: Tensor, sample_rate: int) -> Tensor:
    """Audio without frequencies above half the source's rate, from which no gradient comes either."""
    return band_limit(audio_BT, rate_B / 2, sample_rate)


def kl_divergence(mean_BDL: Tensor, log_variance_BDL: Tensor) -> Tensor:
    """KL of the latents from a standard normal, in nats: summed over channels, mean over frames and rows."""
    mean_BDL, log_variance_BDL = mean_BDL.float(), log_variance_BDL.float()
    each_BDL = 0.5 * (mean_BDL.square() + log_variance_BDL.exp() - 1 - log_variance_BDL)
    return each_BDL.sum(dim=1).mean()


def discriminator_loss(real: list[list[Tensor]], decoded: list[list[Tensor]]) -> Tensor:
    """LSGAN (arXiv 1611.04076): targets 1 for real and 0 for decoded audio; summed over the discriminators."""
    pairs = zip(real, decoded, strict=True)
    return torch.stack([(r[-1] - 1).square().mean() + d[-1].square().mean() for r, d in pairs]).sum()


def adversarial_losses(real: list[list[Tensor]], decoded: list[list[Tensor]]) -> dict[str, Tensor]:
    """The autoencoder's: `adversarial`, with target 1 for decoded audio; `feature`, the distance in every layer."""
    pairs = [pair for r, d in zip(real, decoded, strict=True) for pair in zip(r[:-1], d[:-1], strict=True)]
    return {
        "adversarial": torch.stack([(d[-1] - 1).square().mean() for d in decoded]).sum(),
        "feature": torch.stack([(r.detach() - d).abs().mean() for r, d in pairs]).sum(),
    }
