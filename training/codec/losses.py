"""Losses of AudioVAE: multi-scale mel, waveform, KL, and the discriminators' (LSGAN with feature matching, as DAC).

Every loss is per row first, [B], and a row's own band is all that counts in it. The mean over rows is the batch's, so
the number of ranks that share a batch changes nothing.
"""

import torch
from torch import Tensor, nn

from model.codec.mel_distance import MelDistance, band_limit
from training.codec.config import VAETrainConfig


class ReconstructionLoss(nn.Module):
    """What made audio lacks beside the aim, both limited to the source's band."""

    def __init__(self, config: VAETrainConfig, sample_rate: int) -> None:
        super().__init__()
        self.mel = MelDistance(sample_rate, num_mels=config.loss.num_mels, windows=config.loss.mel_windows)

    def forward(self, made_BT: Tensor, aim_BT: Tensor, nyquist_B: Tensor) -> dict[str, Tensor]:
        """Means over the rows. `mel`: the sum over scales of mean |log10| differences; `waveform`: mean |difference|."""
        return {
            "mel": self.mel(made_BT, aim_BT, nyquist_B).mean(),
            "waveform": (made_BT - aim_BT).abs().mean(),
        }


def within_band(audio_BT: Tensor, rate_B: Tensor, sample_rate: int) -> Tensor:
    """Audio as the losses see it: nothing above half the source's rate; no gradient comes from there."""
    return band_limit(audio_BT, rate_B / 2, sample_rate)


def kl_divergence(mean_BDL: Tensor, log_variance_BDL: Tensor) -> Tensor:
    """KL of the latents' distribution from a standard normal, summed over channels, mean over frames and rows (nats)."""
    mean_BDL, log_variance_BDL = mean_BDL.float(), log_variance_BDL.float()
    each_BDL = 0.5 * (mean_BDL.square() + log_variance_BDL.exp() - 1 - log_variance_BDL)
    return each_BDL.sum(dim=1).mean()


def discriminator_loss(real: list[list[Tensor]], made: list[list[Tensor]]) -> Tensor:
    """LSGAN (arXiv 1611.04076): real is to be 1, made 0; summed over the discriminators."""
    pairs = zip(real, made, strict=True)
    return torch.stack([(r[-1] - 1).square().mean() + m[-1].square().mean() for r, m in pairs]).sum()


def adversarial_losses(real: list[list[Tensor]], made: list[list[Tensor]]) -> dict[str, Tensor]:
    """The generator's side: `adversarial`, made is to be 1; `feature`, made is to look like real to every layer."""
    pairs = [pair for r, m in zip(real, made, strict=True) for pair in zip(r[:-1], m[:-1], strict=True)]
    return {
        "adversarial": torch.stack([(m[-1] - 1).square().mean() for m in made]).sum(),
        "feature": torch.stack([(r.detach() - m).abs().mean() for r, m in pairs]).sum(),
    }
