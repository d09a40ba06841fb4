"""Validation of AudioVAE: losses on held-out crops with the averaged weights, and what they sound and look like."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.codec.audio_vae import AudioVAE
from training.codec.crops import Crops, CropSource
from training.codec.losses import ReconstructionLoss, kl_divergence, within_band
from voxmill.core.tracking import Tracker

ROWS = 8
"""Crops that are decoded at once."""


class Validation:
    """The same crops each time.

    Args:
        source: of held-out clips, without level changes. crops: how many. listen: how many of them are kept to hear.
    """

    def __init__(self, source: CropSource, loss: ReconstructionLoss, *, crops: int, listen: int) -> None:
        self.source, self.loss, self.listen = source, loss, min(listen, crops)
        self.batches = [source.batch(first, min(ROWS, crops - first)) for first in range(0, crops, ROWS)]
        self._shown = False

    @torch.no_grad()
    def run(self, vae: AudioVAE, step: int, tracker: Tracker | None) -> dict[str, float]:
        """Means over the crops, named `valid_...`; audio and pictures go to the tracker.

        `valid_mel` is the report's MelD in each source's own band, on crops.
        """
        rate_out = vae.config.out_sample_rate
        sums: dict[str, float] = {}
        heard = count = 0
        for batch in self.batches:
            crops = batch.to(vae.device)
            mean_BDL, log_variance_BDL = vae.encode_distribution(crops.heard_BT)
            made_BT = vae.decoder(mean_BDL, crops.rate_B)[:, 0].float()
            made_in_BT, aim_in_BT = (within_band(x, crops.rate_B, rate_out) for x in (made_BT, crops.aim_BT))
            losses = self.loss(made_in_BT, aim_in_BT, crops.rate_B / 2)
            losses |= {"kl": kl_divergence(mean_BDL, log_variance_BDL)}
            rows = len(made_BT)
            count += rows
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value) * rows
            for row in range(min(rows, self.listen - heard)):
                if tracker is not None:
                    self._keep(tracker, step, heard, crops, made_in_BT[row], row, rate_out)
                heard += 1
        self._shown = self._shown or tracker is not None
        return {f"valid_{name}": total / count for name, total in sums.items()}

    def _keep(
        self, tracker: Tracker, step: int, number: int, crops: Crops, made_T: Tensor, row: int, rate_out: int
    ) -> None:
        made, aim = made_T.cpu().numpy(), crops.aim_BT[row].cpu().numpy()
        tracker.audio(f"{number}-made", step, made, rate_out)
        if not self._shown:
            tracker.audio(f"{number}-recorded", step, aim, rate_out)
        figure = mel_picture({"recorded": aim, "made": made}, rate_out, int(crops.rate_B[row]) / 2)
        tracker.picture(f"{number}-mel", step, figure)


def mel_picture(audio: dict[str, np.ndarray], sample_rate: int, nyquist: float) -> Any:
    """A matplotlib figure with the log mel spectrogram of each, up to `nyquist` hertz, on one scale of colours."""
    import librosa
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(audio), 3.2), layout="constrained")
    for axes, (title, samples) in zip(figure.subplots(1, len(audio), squeeze=False)[0], audio.items(), strict=True):
        mel = librosa.feature.melspectrogram(
            y=samples, sr=sample_rate, n_fft=2048, hop_length=480, n_mels=80, fmax=nyquist
        )
        axes.imshow(
            10 * np.log10(mel + 1e-8),
            origin="lower",
            aspect="auto",
            vmin=-70,
            vmax=30,
            cmap="magma",
            extent=(0, len(samples) / sample_rate, 0, 80),
        )
        axes.set(title=title, xlabel="seconds", ylabel=f"mel band, to {nyquist / 1000:g} kHz")
    return figure
