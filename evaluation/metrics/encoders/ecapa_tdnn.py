"""ECAPA-TDNN (Desplanques et al. 2020, arXiv:2005.07143) in the form that UniSpeech puts on WavLM's features.

Written from the paper and the names of UniSpeech's tensors (`ECAPA_TDNN_SMALL`: 512 channels, 256 numbers out). What
differs from the usual form: a convolution's ReLU comes before its batch norm, and the attention of the pooling has no
context of the whole clip.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS, POOLED, EMBEDDING = 512, 1536, 256


class EcapaTdnn(nn.Module):
    """Features [B,F,T], normalised over time, to embeddings [B,256] (not normalised)."""

    def __init__(self, num_features: int):
        super().__init__()
        self.layer1 = _ConvReluNorm(num_features, CHANNELS, 5)
        self.layer2 = _Block(dilation=2)
        self.layer3 = _Block(dilation=3)
        self.layer4 = _Block(dilation=4)
        self.conv = nn.Conv1d(3 * CHANNELS, POOLED, 1)
        self.pooling = _AttentiveStatistics(POOLED)
        self.bn = nn.BatchNorm1d(2 * POOLED)
        self.linear = nn.Linear(2 * POOLED, EMBEDDING)

    def forward(self, x_BFT: Tensor) -> Tensor:
        second = self.layer2(self.layer1(x_BFT))
        third = self.layer3(second)
        x_BCT = F.relu(self.conv(torch.cat([second, third, self.layer4(third)], dim=1)))
        embedding_BD: Tensor = self.linear(self.bn(self.pooling(x_BCT)))
        return embedding_BD


class _ConvReluNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x_BCT: Tensor) -> Tensor:
        y_BCT: Tensor = self.bn(F.relu(self.conv(x_BCT)))
        return y_BCT


class _Branches(nn.Module):
    """Res2Net: eight parts of the channels, each but the last convolved after the output of the one before is added."""

    scale = 8

    def __init__(self, dilation: int):
        super().__init__()
        width = CHANNELS // self.scale
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(self.scale - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(self.scale - 1))

    def forward(self, x_BCT: Tensor) -> Tensor:
        *pieces, last = x_BCT.chunk(self.scale, dim=1)
        outputs: list[Tensor] = []
        for piece, conv, norm in zip(pieces, self.convs, self.bns, strict=True):
            outputs.append(norm(F.relu(conv(outputs[-1] + piece if outputs else piece))))
        return torch.cat([*outputs, last], dim=1)


class _SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(CHANNELS, 128)
        self.linear2 = nn.Linear(128, CHANNELS)

    def forward(self, x_BCT: Tensor) -> Tensor:
        return x_BCT * torch.sigmoid(self.linear2(F.relu(self.linear1(x_BCT.mean(2)))))[..., None]


class _Block(nn.Module):
    def __init__(self, dilation: int):
        super().__init__()
        # The released tensors have the names of UniSpeech's classes.
        self.Conv1dReluBn1 = _ConvReluNorm(CHANNELS, CHANNELS)
        self.Res2Conv1dReluBn = _Branches(dilation)
        self.Conv1dReluBn2 = _ConvReluNorm(CHANNELS, CHANNELS)
        self.SE_Connect = _SqueezeExcite()

    def forward(self, x_BCT: Tensor) -> Tensor:
        change_BCT: Tensor = self.SE_Connect(self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(x_BCT))))
        return x_BCT + change_BCT


class _AttentiveStatistics(nn.Module):
    """[B,C,T] to [B,2C]: mean and deviation over time, weighed by an attention of each channel's own."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear1 = nn.Conv1d(channels, 128, 1)
        self.linear2 = nn.Conv1d(128, channels, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        weight_BCT = torch.softmax(self.linear2(torch.tanh(self.linear1(x_BCT))), dim=2)
        mean = (weight_BCT * x_BCT).sum(2)
        variance = (weight_BCT * x_BCT.square()).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)
