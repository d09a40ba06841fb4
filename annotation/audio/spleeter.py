"""Spleeter's two-stem separator (MIT) as a waveform model like those of demucs.

Apart from `separation.py`, so that reading its configuration does not import torch.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RATE = 44100


class SpleeterVocals(nn.Module):
    """Spleeter's two-stem separator as a waveform model: mix [B,2,T] at 44.1 kHz to its vocals [B,1,2,T].

    Both networks run, for each stem's share of a bin is measured against the other's; only the vocals become audio.
    """

    sources = ["vocals"]
    samplerate = RATE
    audio_channels = 2
    segment = 23.4  # two blocks; four would take a quarter of a GB more and are no faster
    n_fft, hop, num_bins, block = 4096, 1024, 1024, 512
    # One block of 12 s at a time: what a block needs on its way is large.
    blocks_together = 1

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleList([_UNet(), _UNet()])
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    @classmethod
    def load(cls, folder: Path) -> "SpleeterVocals":
        """Reads the two checkpoints `testcheckpoint{0,1}.ckpt` (tensors and arrays only, nothing is executed)."""
        model = cls()
        from numpy._core.multiarray import _reconstruct

        allowed: list[Any] = [
            np.ndarray,
            np.dtype,
            np.dtypes.Float32DType,
            _reconstruct,
            (_reconstruct, "numpy.core.multiarray._reconstruct"),
        ]
        for index, stem in enumerate(model.stems):
            with torch.serialization.safe_globals(allowed):
                arrays = torch.load(folder / f"testcheckpoint{index}.ckpt", weights_only=True)
            stem.load_state_dict({k: torch.as_tensor(v) for k, v in arrays.items()}, strict=False)
        return model.eval()

    def forward(self, mix_BCT: torch.Tensor) -> torch.Tensor:
        B, C, T = mix_BCT.shape
        window: torch.Tensor = self.window  # type: ignore[assignment]
        spec = torch.stft(
            mix_BCT.reshape(B * C, T), self.n_fft, self.hop, window=window, return_complex=True, pad_mode="constant"
        )
        bands = spec[:, : self.num_bins]
        magnitude = bands.abs().reshape(B, C, self.num_bins, -1)
        frames = magnitude.shape[-1]
        padded = math.ceil(frames / self.block) * self.block
        blocks = F.pad(magnitude, (0, padded - frames)).unfold(3, self.block, self.block)
        blocks = blocks.permute(0, 3, 1, 4, 2).reshape(-1, C, self.block, self.num_bins)
        vocals, rest = (
            torch.cat([stem(part) for part in blocks.split(self.blocks_together)]).square_() for stem in self.stems
        )
        ratio = (vocals + 5e-11) / rest.add_(vocals).add_(1e-10)
        ratio = ratio.reshape(B, -1, C, self.block, self.num_bins).permute(0, 2, 4, 1, 3)
        ratio = ratio.reshape(B * C, self.num_bins, padded)[..., :frames]
        # Above 11 kHz the network sees nothing: its topmost bands speak for the rest.
        above = ratio[:, -64:].mean(1, keepdim=True)
        spec[:, : self.num_bins] *= ratio
        spec[:, self.num_bins :] *= above
        wave = torch.istft(spec, self.n_fft, self.hop, window=window, length=T)
        return wave.reshape(B, 1, C, T)


class _UNet(nn.Module):
    """Spleeter's U-Net over magnitudes [N,2,512,1024]; returns the estimated magnitude."""

    def __init__(self) -> None:
        super().__init__()
        widths = [2, 16, 32, 64, 128, 256, 512]
        for i in range(6):
            conv = nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(widths[i], widths[i + 1], 5, stride=2))
            act = nn.Sequential(nn.BatchNorm2d(widths[i + 1], eps=1e-3, momentum=0.01), nn.LeakyReLU(0.2))
            setattr(self, f"down{i + 1}_conv", conv)
            setattr(self, f"down{i + 1}_act", act)
        ups = [(512, 256), (512, 128), (256, 64), (128, 32), (64, 16), (32, 1)]
        for i, (inputs, outputs) in enumerate(ups):
            layers = [nn.ConvTranspose2d(inputs, outputs, 5, stride=2), _Crop(), nn.ReLU()]
            layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))
            setattr(self, f"up{i + 1}", nn.Sequential(*layers))
        self.up7 = nn.Sequential(nn.Conv2d(1, 2, 4, dilation=2, padding=3), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips, y = [], x
        for i in range(1, 7):
            skip = self.get_submodule(f"down{i}_conv")(y)
            skips.append(skip)
            y = self.get_submodule(f"down{i}_act")(skip)
        y = self.get_submodule("up1")(skips[5])
        for i in range(2, 7):
            y = self.get_submodule(f"up{i}")(torch.cat([skips[6 - i], y], dim=1))
        masked: torch.Tensor = self.get_submodule("up7")(y) * x
        return masked


class _Crop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 1:-2, 1:-2]
