"""Layers of AudioVAE V2: causal convolutions with weight norm, Snake, residual units, the sample-rate condition.

Every layer reads the past only. With a `History` it reads the end of the previous call's input and stores the end of
this one's, so audio of any length is processed in pieces, each stream with a history of its own; without one, the past
is zeros. Weight norm keeps its legacy names `weight_g` and `weight_v`; `fold` computes the weight once.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.config import AudioVAEConfig


class History:
    """The end of each causal layer's last input, [B, C, width]; empty before the first piece."""

    def __init__(self) -> None:
        self.tails_BCW: dict[nn.Module, Tensor] = {}

    def extend(self, layer: nn.Module, x_BCT: Tensor, width: int) -> Tensor:
        """`x_BCT` with the `width` samples before it, [B, C, width + T]; stores the last `width` for the next call."""
        tail = self.tails_BCW.get(layer)
        joined = F.pad(x_BCT, (width, 0)) if tail is None else torch.cat([tail, x_BCT], dim=-1)
        # A copy: a view would keep the whole piece alive.
        self.tails_BCW[layer] = joined[..., joined.shape[-1] - width :].clone()
        return joined

    @staticmethod
    def join(histories: Sequence["History"], sizes: Sequence[int]) -> "History":
        """Rows of several histories as one. A new history among old ones has a past of zeros."""
        joined = History()
        for layer in {layer: None for history in histories for layer in history.tails_BCW}:
            known = next(history.tails_BCW[layer] for history in histories if layer in history.tails_BCW)
            joined.tails_BCW[layer] = torch.cat(
                [
                    history.tails_BCW.get(layer, known.new_zeros(size, *known.shape[1:]))
                    for history, size in zip(histories, sizes, strict=True)
                ]
            )
        return joined

    def split(self, sizes: Sequence[int]) -> list["History"]:
        """The inverse of `join`."""
        parts = [History() for _ in sizes]
        for layer, tail_BCW in self.tails_BCW.items():
            for part, rows in zip(parts, tail_BCW.split(list(sizes)), strict=True):
                part.tails_BCW[layer] = rows.clone()
        return parts


class CausalConv1d(nn.Module):
    """A convolution over the past: [B, C_in, T] to [B, C_out, T / stride], T a multiple of the stride.

    Left context: dilation * (kernel - 1) samples, or one stride where the kernel is two strides long.
    """

    bias: nn.Parameter | None
    folded: Tensor | None

    def __init__(
        self,
        num_in: int,
        num_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.context = dilation * (kernel - 1) - (stride - 1)
        self._add_weights(torch.empty(num_out, num_in // groups, kernel), num_out if bias else 0)

    def _add_weights(self, weight: Tensor, num_bias: int) -> None:
        bound = 1 / math.sqrt(weight.shape[1] * weight.shape[2])
        nn.init.uniform_(weight, -bound, bound)  # as PyTorch initialises a convolution
        bias = nn.Parameter(torch.empty(num_bias).uniform_(-bound, bound)) if num_bias else None
        self.register_parameter("bias", bias)
        self.weight_g = nn.Parameter(weight.norm(dim=(1, 2), keepdim=True))
        self.weight_v = nn.Parameter(weight)
        self.register_buffer("folded", None, persistent=False)
        self.register_load_state_dict_pre_hook(CausalConv1d._forget)  # type: ignore[no-untyped-call]

    @property
    def weight(self) -> Tensor:
        """g * v / |v|, the norm over all dimensions but the first."""
        if self.folded is not None:
            return self.folded
        weight: Tensor = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(1, 2), keepdim=True))
        return weight

    def fold(self) -> None:
        """Computes the weight once, until `train()` or new weights."""
        self.folded = None
        self.folded = self.weight.detach()

    def train(self, mode: bool = True) -> Self:
        if mode:
            self.folded = None
        return super().train(mode)

    def _forget(self, *_: object) -> None:
        self.folded = None

    def forward(self, x_BCT: Tensor, history: History | None = None) -> Tensor:
        if self.context:
            x_BCT = F.pad(x_BCT, (self.context, 0)) if history is None else history.extend(self, x_BCT, self.context)
        weight = self.weight
        if weight.shape[1:] == (x_BCT.shape[1], 1):
            # One tap is a matrix product, which PyTorch's convolution does slowly on a CPU.
            return _product(weight[..., 0], x_BCT, self.bias)
        return F.conv1d(x_BCT, weight, self.bias, self.stride, 0, self.dilation, self.groups)


class CausalTransposedConv1d(CausalConv1d):
    """Upsampling: [B, C_in, T] to [B, C_out, T * stride]; an output sample reads one input sample and the one before.

    `weight_v` is [C_in, C_out, 2 * stride], so weight norm is over each *input* channel here.
    """

    def __init__(self, num_in: int, num_out: int, *, stride: int) -> None:
        nn.Module.__init__(self)
        self.stride = stride
        self._add_weights(torch.empty(num_in, num_out, 2 * stride), num_out)

    def fold(self) -> None:
        """Computes the weight once, as matrices [stride * C_out, C_in] of this input sample and the one before."""
        super().fold()
        assert self.folded is not None
        self.folded = self.folded.permute(2, 1, 0).reshape(2, -1, self.folded.shape[0])

    def forward(self, x_BCT: Tensor, history: History | None = None) -> Tensor:
        x_BCT = F.pad(x_BCT, (1, 0)) if history is None else history.extend(self, x_BCT, 1)
        if self.folded is None:
            # The first stride lacks its past and the last its present; the others are whole.
            return F.conv_transpose1d(x_BCT, self.weight, self.bias, self.stride)[..., self.stride : -self.stride]
        bias = None if self.bias is None else self.bias.repeat(self.stride)
        now_BST = _product(self.folded[0], x_BCT[..., 1:], bias)
        both_BST = now_BST.baddbmm_(self.folded[1].expand(len(x_BCT), -1, -1), x_BCT[..., :-1])
        result_BCT: Tensor = both_BST.unflatten(1, (self.stride, -1)).permute(0, 2, 3, 1).flatten(2)
        return result_BCT


def _product(weight_OC: Tensor, x_BCT: Tensor, bias_O: Tensor | None) -> Tensor:
    """weight x + bias for each sample, [B, O, T]."""
    weight_BOC = weight_OC.expand(len(x_BCT), -1, -1)
    return torch.bmm(weight_BOC, x_BCT) if bias_O is None else torch.baddbmm(bias_O[:, None], weight_BOC, x_BCT)


class _SnakeWithSlope(torch.autograd.Function):
    """Snake with a backward of its own, which keeps its input and nothing else.

    Step by step, autograd would keep four tensors of audio's length for each of some fifty Snakes, and go through twice
    as many.
    """

    @staticmethod
    def forward(context: Any, x_BCT: Tensor, alpha_1C1: Tensor) -> Tensor:
        context.save_for_backward(x_BCT, alpha_1C1)
        return _snake(x_BCT, alpha_1C1)

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope_BCT: Tensor) -> tuple[Tensor, Tensor]:
        x_BCT, alpha_1C1 = context.saved_tensors
        scale_1C1 = (alpha_1C1 + 1e-9).reciprocal()
        wave_BCT = alpha_1C1 * x_BCT
        sine_BCT = wave_BCT.sin()
        part_BCT = slope_BCT * sine_BCT
        square_BC = torch.linalg.vecdot(part_BCT, sine_BCT)
        part_BCT = part_BCT.mul_(wave_BCT.cos_())  # half of slope * sin(2 alpha x)
        product_BC = torch.linalg.vecdot(part_BCT, x_BCT.to(part_BCT.dtype))
        alpha_BC = 2 * product_BC * scale_1C1[..., 0] - square_BC * scale_1C1[..., 0].square()
        x_slope_BCT = torch.addcmul(slope_BCT.to(part_BCT.dtype), part_BCT, 2 * alpha_1C1 * scale_1C1)
        return x_slope_BCT.to(x_BCT.dtype), alpha_BC.sum(0)[None, :, None]


def _snake(x_BCT: Tensor, alpha_1C1: Tensor) -> Tensor:
    # In place: fresh memory costs more than the arithmetic.
    scale_1C1 = (alpha_1C1 + 1e-9).reciprocal()
    return (alpha_1C1 * x_BCT).sin_().square_().mul_(scale_1C1).add_(x_BCT)


class Snake(nn.Module):
    """x + sin(alpha * x)^2 / alpha, one alpha per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x_BCT: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            result_BCT: Tensor = _SnakeWithSlope.apply(x_BCT, self.alpha)  # type: ignore[no-untyped-call]
            return result_BCT
        return _snake(x_BCT, self.alpha)


class ResidualUnit(nn.Module):
    """x plus a dilated convolution of seven taps and one of one tap, each after Snake."""

    def __init__(self, channels: int, *, dilation: int, groups: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [
                Snake(channels),
                CausalConv1d(channels, channels, 7, dilation=dilation, groups=groups),
                Snake(channels),
                CausalConv1d(channels, channels, 1),
            ]
        )

    def forward(self, x_BCT: Tensor, history: History | None = None) -> Tensor:
        before, dilated, between, mixed = self.block
        result_BCT: Tensor = x_BCT + mixed(between(dilated(before(x_BCT), history)))
        return result_BCT


class NoiseBlock(nn.Module):
    """x + noise * (W x): one Gaussian draw per sample, the same for all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = CausalConv1d(channels, channels, 1, bias=False)

    def forward(self, x_BCT: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """`generators`: one for each row, so that a row's noise does not depend on others; None: the global one."""
        rows, _, length = x_BCT.shape
        if generators is None:
            noise_B1T = torch.randn(rows, 1, length, dtype=x_BCT.dtype, device=x_BCT.device)
        else:
            rows_1T = [torch.randn(1, length, generator=g, dtype=x_BCT.dtype, device=g.device) for g in generators]
            noise_B1T = torch.stack(rows_1T).to(x_BCT.device)
        result_BCT: Tensor = x_BCT + noise_B1T * self.linear(x_BCT)
        return result_BCT


class SampleRateCondition(nn.Module):
    """Conditions a decoder block on the target bandwidth, in one of four ways (`cond_type`)."""

    def __init__(self, channels: int, config: AudioVAEConfig) -> None:
        super().__init__()
        assert config.sr_bin_boundaries is not None
        bins, self.kind = len(config.sr_bin_boundaries) + 1, config.cond_type
        if self.kind in ("scale_bias", "scale_bias_init"):
            self.scale_embed = nn.Embedding(bins, channels)
            self.bias_embed = nn.Embedding(bins, channels)
            spread = 1.0 if self.kind == "scale_bias_init" else 0.0
            nn.init.normal_(self.scale_embed.weight, mean=1.0, std=spread)
            nn.init.normal_(self.bias_embed.weight, std=spread)
        else:
            self.cond_embed = nn.Embedding(bins, channels if self.kind == "add" else config.cond_dim)
        if config.cond_out_layer:
            wide = channels + (config.cond_dim if self.kind == "concat" else 0)
            self.out_layer = nn.ModuleList([Snake(wide), CausalConv1d(wide, channels, 1)])

    def forward(self, x_BCT: Tensor, bin_B: Tensor) -> Tensor:
        """`bin_B`: index of the sample rate's bin, one for each row or one for all ([1])."""
        if self.kind == "add":
            x_BCT = x_BCT + self.cond_embed(bin_B)[..., None]
        elif self.kind == "concat":
            condition_BC1 = self.cond_embed(bin_B)[..., None]
            x_BCT = torch.cat([x_BCT, condition_BC1.expand(x_BCT.shape[0], -1, x_BCT.shape[-1])], dim=1)
        else:
            x_BCT = torch.addcmul(self.bias_embed(bin_B)[..., None], x_BCT, self.scale_embed(bin_B)[..., None])
        for layer in getattr(self, "out_layer", ()):
            x_BCT = layer(x_BCT)
        return x_BCT
