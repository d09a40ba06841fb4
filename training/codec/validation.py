"""Validation of AudioVAE: losses on held-out crops with the averaged weights, and audio and mel pictures of some."""

import torch
from torch import Tensor

from model.codec.audio_vae import AudioVAE
from training.codec.crops import Crops, CropSource
from training.codec.losses import ReconstructionLoss, kl_divergence, within_band
from voxmill.core.audio_plots import mel_picture
from voxmill.core.tracking import Tracker

ROWS = 8
"""Crops that are decoded at once."""


class Validation:
    """Scores the same crops each time.

    Args:
        source: of held-out clips, without changes of level. crops: how many are scored.
        listen: how many of them are also kept as audio and pictures.
    """

    def __init__(self, source: CropSource, loss: ReconstructionLoss, *, crops: int, listen: int) -> None:
        self.source, self.loss, self.listen = source, loss, min(listen, crops)
        self.batches = [source.batch(first, min(ROWS, crops - first)) for first in range(0, crops, ROWS)]
        self._has_targets = False

    @torch.no_grad()
    def run(self, vae: AudioVAE, step: int, tracker: Tracker | None) -> dict[str, float]:
        """Means over the crops, named `valid_...`; audio and pictures go to the tracker.

        `valid_mel` is the report's MelD in each source's own band, on crops.
        """
        rate_out = vae.config.out_sample_rate
        sums: dict[str, float] = {}
        kept = count = 0
        for batch in self.batches:
            crops = batch.to(vae.device)
            mean_BDL, log_variance_BDL = vae.encode_distribution(crops.input_BT)
            decoded_BT = vae.decoder(mean_BDL, crops.rate_B)[:, 0].float()
            decoded_in_band_BT, target_in_band_BT = (
                within_band(x_BT, crops.rate_B, rate_out) for x_BT in (decoded_BT, crops.target_BT)
            )
            losses = self.loss(decoded_in_band_BT, target_in_band_BT, crops.rate_B / 2)
            losses |= {"kl": kl_divergence(mean_BDL, log_variance_BDL)}
            rows = len(decoded_BT)
            count += rows
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value) * rows
            for row in range(min(rows, self.listen - kept)):
                if tracker is not None:
                    self._keep(tracker, step, kept, crops, decoded_in_band_BT[row], row, rate_out)
                kept += 1
        self._has_targets = self._has_targets or tracker is not None
        return {f"valid_{name}": total / count for name, total in sums.items()}

    def _keep(
        self, tracker: Tracker, step: int, number: int, crops: Crops, decoded_T: Tensor, row: int, rate_out: int
    ) -> None:
        decoded, target = decoded_T.cpu().numpy(), crops.target_BT[row].cpu().numpy()
        tracker.audio(f"{number}-made", step, decoded, rate_out)
        if not self._has_targets:
            tracker.audio(f"{number}-recorded", step, target, rate_out)
        figure = mel_picture({"recorded": target, "made": decoded}, rate_out, int(crops.rate_B[row]) / 2)
        tracker.picture(f"{number}-mel", step, figure)
