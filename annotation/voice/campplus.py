"""CAM++ (Wang et al. 2023, arXiv:2303.00332): 80 mel bands in, a speaker embedding of 192 numbers out.

Written from the paper and the names of the tensors that 3D-Speaker released (Apache-2.0). Apart from `speaker.py`, so
that reading its configuration does not import torch.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from voxmill.core.tensor_files import load_state

RATE = 16000
NUM_MELS = 80


class CamPlusPlus(nn.Module):
    """CAM++: log mel features [B,T,80] with zero mean over time to embeddings [B,192] (not normalised).

    A small 2-D residual network over frequency, then a densely connected 1-D network whose layers are each masked by
    their context (the mean over the clip plus the mean over the own second).
    """

    # A plain container that gives the released tensors their names.
    xvector: Any

    def __init__(self, embedding_size: int = 192, growth: int = 32, width: int = 128):
        super().__init__()
        self.head = _FrequencyHead(channels=32)
        self.xvector = nn.Module()
        self.xvector.tdnn = _Tdnn(32 * NUM_MELS // 8, width)
        channels = width
        self.num_blocks = 0
        for layers, dilation in ((12, 1), (24, 2), (16, 2)):
            self.num_blocks += 1
            block = nn.ModuleDict()
            for i in range(layers):
                block[f"tdnnd{i + 1}"] = _DenseLayer(channels + i * growth, 4 * growth, growth, dilation)
            channels += layers * growth
            self.xvector.add_module(f"block{self.num_blocks}", block)
            self.xvector.add_module(f"transit{self.num_blocks}", _Transit(channels, channels // 2))
            channels //= 2
        self.xvector.out_nonlinear = _NormRelu(channels)
        self.xvector.dense = nn.Module()
        self.xvector.dense.linear = nn.Conv1d(2 * channels, embedding_size, 1, bias=False)
        self.xvector.dense.nonlinear = nn.ModuleDict({"batchnorm": nn.BatchNorm1d(embedding_size, affine=False)})

    @classmethod
    def load(cls, path: Path) -> "CamPlusPlus":
        """Reads released weights; tensors only, nothing is executed.

        Raises:
            UserError: the file cannot be read or is not CAM++ of this size.
        """
        model = cls()
        load_state(model, path, setting="speaker.model=", what="CAM++")
        return model.eval()

    def forward(self, mel_BTF: torch.Tensor) -> torch.Tensor:
        x = self.xvector.tdnn(self.head(mel_BTF.transpose(1, 2)))
        for i in range(1, self.num_blocks + 1):
            for layer in self.xvector.get_submodule(f"block{i}").values():
                x = torch.cat([x, layer(x)], dim=1)
            x = self.xvector.get_submodule(f"transit{i}")(x)
        x_BCT = self.xvector.out_nonlinear(x)
        moments = torch.cat([x_BCT.mean(2), x_BCT.std(2, unbiased=True)], dim=1)[..., None]
        dense = self.xvector.dense
        embedding_BD: torch.Tensor = dense.nonlinear["batchnorm"](dense.linear(moments))[..., 0]
        return embedding_BD


class _FrequencyHead(nn.Module):
    """[B,F,T] to [B, channels * F / 8, T]: convolutions that shrink frequency and leave time alone."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(_Residual(channels, 2), _Residual(channels, 1))
        self.layer2 = nn.Sequential(_Residual(channels, 2), _Residual(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x_BFT: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x_BFT[:, None])))
        x = F.relu(self.bn2(self.conv2(self.layer2(self.layer1(x)))))
        return x.flatten(1, 2)


class _Residual(nn.Module):
    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            conv = nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class _NormRelu(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.batchnorm(x))


class _Tdnn(nn.Module):
    """The first 1-D layer; halves the frame rate."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Conv1d(inputs, outputs, 5, stride=2, padding=2, bias=False)
        self.nonlinear = _NormRelu(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y_BCT: torch.Tensor = self.nonlinear(self.linear(x))
        return y_BCT


class _Transit(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.nonlinear = _NormRelu(inputs)
        self.linear = nn.Conv1d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y_BCT: torch.Tensor = self.linear(self.nonlinear(x))
        return y_BCT


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, bottleneck: int, outputs: int, dilation: int):
        super().__init__()
        self.nonlinear1 = _NormRelu(inputs)
        self.linear1 = nn.Conv1d(inputs, bottleneck, 1, bias=False)
        self.nonlinear2 = _NormRelu(bottleneck)
        self.cam_layer = _ContextMasked(bottleneck, outputs, dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y_BCT: torch.Tensor = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))
        return y_BCT


class _ContextMasked(nn.Module):
    """A dilated convolution times a mask in 0..1 from the clip's mean and the mean of each 100-frame segment."""

    segment = 100

    def __init__(self, inputs: int, outputs: int, dilation: int):
        super().__init__()
        self.linear_local = nn.Conv1d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(inputs, inputs // 2, 1)
        self.linear2 = nn.Conv1d(inputs // 2, outputs, 1)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        segments = F.avg_pool1d(x_BCT, self.segment, ceil_mode=True)
        # The context is constant over a segment, so its mask is computed once a segment and then spread.
        mask = torch.sigmoid(self.linear2(F.relu(self.linear1(segments + x_BCT.mean(2, keepdim=True)))))
        spread = mask.repeat_interleave(self.segment, dim=2)[..., : x_BCT.shape[2]]
        masked_BCT: torch.Tensor = self.linear_local(x_BCT) * spread
        return masked_BCT


def log_mel(audio: np.ndarray) -> torch.Tensor:
    """Kaldi's 80 log mel energies [T,80] at 100 frames a second without dither, mean over time removed.

    Args:
        audio: float32 [samples] at 16 kHz, at least 400.
    """
    from torchaudio.compliance.kaldi import fbank

    wave = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))[None]
    mel = fbank(wave, num_mel_bins=NUM_MELS, sample_frequency=RATE, dither=0.0)
    centred_TF: torch.Tensor = mel - mel.mean(0, keepdim=True)
    return centred_TF
