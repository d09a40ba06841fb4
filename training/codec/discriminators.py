"""Discriminators of AudioVAE's training: periods of the waveform and bands of the spectrum (DAC, arXiv 2306.06546).

Each takes audio [B, T] and returns the outputs of its layers, the last of them its score. Real and decoded audio are
limited to the same band, so that a source's missing treble gives nothing away.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from training.codec.config import DiscriminatorConfig

SLOPE = 0.1
"""Of the leaky ReLU."""


def _conv(
    num_in: int, num_out: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> nn.Module:
    layer: nn.Module = weight_norm(nn.Conv2d(num_in, num_out, kernel, stride, padding))
    return layer


class PeriodDiscriminator(nn.Module):
    """Convolutions along the columns of audio folded to rows of `period` samples (HiFi-GAN, arXiv 2010.05646)."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, channels * 4, channels * 16, channels * 32]
        self.layers = nn.ModuleList(
            [_conv(a, b, (5, 1), (3, 1), (2, 0)) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        )
        self.layers.append(_conv(widths[-1], widths[-1], (5, 1), (1, 1), (2, 0)))
        self.judge = _conv(widths[-1], 1, (3, 1), (1, 1), (1, 0))

    def forward(self, audio_BT: Tensor) -> list[Tensor]:
        """Outputs of the layers, [B, C, T / period / ..., period] each."""
        audio_BT = F.pad(audio_BT, (0, -audio_BT.shape[-1] % self.period), mode="reflect")
        x_BCRP = audio_BT.reshape(len(audio_BT), 1, -1, self.period)
        outputs = []
        for layer in self.layers:
            x_BCRP = F.leaky_relu(layer(x_BCRP), SLOPE)
            outputs.append(x_BCRP)
        return [*outputs, self.judge(x_BCRP)]


class SpectrumDiscriminator(nn.Module):
    """The complex spectrum at one resolution, each band by layers of its own."""

    def __init__(self, window: int, bands: tuple[float, ...], channels: int) -> None:
        super().__init__()
        bins = window // 2 + 1
        edges = [0, *(round(edge * bins) for edge in bands), bins]
        self.bounds = list(zip(edges[:-1], edges[1:], strict=True))
        self.register_buffer("window_N", torch.hann_window(window), persistent=False)
        self.bands = nn.ModuleList([self._band(channels) for _ in self.bounds])
        self.judge = _conv(channels, 1, (3, 3), (1, 1), (1, 1))

    @staticmethod
    def _band(channels: int) -> nn.ModuleList:
        layers = [_conv(2, channels, (3, 9), (1, 1), (1, 4))]
        layers += [_conv(channels, channels, (3, 9), (1, 2), (1, 4)) for _ in range(3)]
        return nn.ModuleList([*layers, _conv(channels, channels, (3, 3), (1, 1), (1, 1))])

    def forward(self, audio_BT: Tensor) -> list[Tensor]:
        """Outputs of the layers, [B, C, frames, bins / ...] each, band after band."""
        window_N = self.get_buffer("window_N")
        size = len(window_N)
        spectrum_BFT = torch.stft(audio_BT.float(), size, size // 4, window=window_N, return_complex=True)
        x_B2TF = torch.view_as_real(spectrum_BFT).permute(0, 3, 2, 1)
        outputs, ends = [], []
        for (low, high), layers in zip(self.bounds, self.bands, strict=True):
            x_BCTF = x_B2TF[..., low:high]
            for layer in layers:  # type: ignore[attr-defined]
                x_BCTF = F.leaky_relu(layer(x_BCTF), SLOPE)
                outputs.append(x_BCTF)
            ends.append(x_BCTF)
        return [*outputs, self.judge(torch.cat(ends, dim=-1))]


class Discriminators(nn.Module):
    """All of them; each has terms of its own in the losses."""

    def __init__(self, config: DiscriminatorConfig, *, autocast: bool) -> None:
        super().__init__()
        self.autocast = autocast
        self.members = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, config.period_channels) for period in config.periods),
                *(SpectrumDiscriminator(w, config.bands, config.spectrum_channels) for w in config.windows),
            ]
        )

    def forward(self, audio_BT: Tensor) -> list[list[Tensor]]:
        """Layer outputs of each discriminator, fp32; the last is its score, 1 for real and 0 for decoded audio."""
        audio_BT = _levelled(audio_BT)
        with torch.autocast(audio_BT.device.type, torch.bfloat16, enabled=self.autocast):
            by_member = [member(audio_BT) for member in self.members]
        return [[output.float() for output in outputs] for outputs in by_member]


def _levelled(audio_BT: Tensor) -> Tensor:
    """Without DC, at a peak of 0.8: real and decoded audio may differ in level, and the score should not show it."""
    audio_BT = audio_BT - audio_BT.mean(dim=-1, keepdim=True)
    return 0.8 * audio_BT / audio_BT.abs().amax(dim=-1, keepdim=True).clamp(min=1e-3)
