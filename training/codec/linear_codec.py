"""The linear codec that a new AudioVAE starts as: half of each layer's channels and the latents carry it.

The best linear codec without look-ahead is the Karhunen-Loeve transform of each latent frame's samples: the strongest
eigenvectors of their covariance. Every level of encoder and decoder has a transform of its own for the samples of one
of its frames, and the convolution between two levels turns the coefficients of one into those of the other. So the
first step already reconstructs speech up to about 800 Hz, phase included, which from random weights thousands of steps
do not learn (docs/log.md). The output of the other channels is added to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.codec.audio_vae import AudioVAE, Decoder, DecoderBlock, Encoder, EncoderBlock
from model.codec.layers import (
    CausalConv1d,
    CausalTransposedConv1d,
    NoiseBlock,
    ResidualUnit,
    SampleRateCondition,
    Snake,
)
from training.codec.crops import Crops

STRAIGHT = 0.01
"""Snake's alpha for the codec's channels: they pass nearly unchanged."""
FREE_SHARE = 0.1
"""Spread of the free channels' part in the first audio, as a share of the audio's spread."""
WEAKEST = 1e-6
"""Eigenvalue, as a share of the strongest, below which nothing is coded: bands that no source has."""

Linear = dict[CausalConv1d, int]
"""How many of a layer's output channels, the first ones, belong to the linear codec."""


@dataclass(frozen=True)
class Transform:
    """Of a frame's samples [N] into coefficients of unit spread [K], and back: about `basis_NK` @ coefficients."""

    basis_NK: Tensor
    inverse_KN: Tensor

    @property
    def count(self) -> int:
        """K."""
        return self.basis_NK.shape[1]


@torch.no_grad()
def begin_linear(vae: AudioVAE, crops: Crops) -> Linear:
    """Writes the codec for audio like `crops` into new weights, in place.

    Args:
        crops: enough to estimate the audio's spectrum; hundreds of them have seconds of every voice.
    """
    linear: Linear = {}
    encoded = _encoder(vae.encoder, autocorrelation(crops.input_BT, vae.hop), linear)
    latents = linear[vae.encoder.fc_mu]
    # Both sides' coefficients of the same frames: the map from one to the other is fitted to the crops.
    latent_NK = _coefficients(encoded, crops.input_BT)[:, :latents]
    samples = vae.samples_per_latent
    layers = [layer for layer in vae.decoder.model if isinstance(layer, CausalConv1d)]
    correlation_N = autocorrelation(crops.target_BT, samples)
    decoded = karhunen_loeve(correlation_N, samples, _half(layers[-2].weight_v.shape[0]))
    joint_KK = torch.linalg.lstsq(
        latent_NK.double(), _coefficients(decoded, crops.target_BT).double()
    ).solution.T.float()
    if len(layers) == 3:  # depthwise: a filter for each latent before they are mixed
        _write(layers[0], latents, {-1: torch.ones(latents, 1)}, linear)
    _write(layers[-2], decoded.count, {-1: joint_KK}, linear)
    _decoder(vae.decoder, decoded, correlation_N, linear)
    return linear


def autocorrelation(audio_BT: Tensor, lags: int) -> Tensor:
    """Of all rows together, float64 [lags]; a covariance made of it has no negative eigenvalue."""
    length = audio_BT.shape[1]
    total_T = torch.zeros(2 * length, dtype=torch.float64)
    for audio_T in audio_BT:
        total_T += torch.fft.irfft(torch.fft.rfft(audio_T.double(), n=2 * length).abs().square(), n=2 * length)
    return total_T[:lags] / audio_BT.numel()


def karhunen_loeve(correlation_N: Tensor, samples: int, count: int) -> Transform:
    """The strongest components, at most `count`, of frames of so many samples of a stationary signal."""
    lags_NN = (torch.arange(samples)[:, None] - torch.arange(samples)).abs()
    values_N, vectors_NN = torch.linalg.eigh(correlation_N[lags_NN])
    values_N, vectors_NN = values_N.flip(0), vectors_NN.flip(1)
    # An eigenvector may point either way; here its first sample decides, on any machine.
    vectors_NN = torch.where(vectors_NN[0] < 0, -vectors_NN, vectors_NN)
    count = min(count, max(1, int((values_N > WEAKEST * values_N[0]).sum())))
    spread_K = values_N[:count].clamp(min=1e-12).sqrt()
    vectors_NK = vectors_NN[:, :count]
    return Transform((vectors_NK * spread_K).float(), (vectors_NK / spread_K).T.float())


def _encoder(encoder: Encoder, correlation_N: Tensor, linear: Linear) -> Transform:
    """Down to the latents; returns the last level's transform."""
    first, *blocks = encoder.block
    assert isinstance(first, CausalConv1d)
    samples, level = 1, karhunen_loeve(correlation_N, 1, 1)
    _write(first, 1, {-1: level.inverse_KN}, linear)
    for block in blocks:
        assert isinstance(block, EncoderBlock)
        for layer in block.block[:-1]:
            _pass_through(layer, level.count, linear)
        down, before = block.block[-1], level
        assert isinstance(down, CausalConv1d)
        samples *= down.stride
        level = karhunen_loeve(correlation_N, samples, _half(down.weight_v.shape[0]))
        parts_KSN = level.inverse_KN.reshape(level.count, down.stride, -1)
        # The last taps read this frame, those before them the past.
        taps = {i - down.stride: parts_KSN[:, i] @ before.basis_NK for i in range(down.stride)}
        _write(down, level.count, taps, linear)
    count = min(level.count, encoder.fc_mu.weight_v.shape[0])
    _write(encoder.fc_mu, count, {-1: torch.eye(count, level.count)}, linear)
    return level


def _decoder(decoder: Decoder, level: Transform, correlation_N: Tensor, linear: Linear) -> None:
    """From the first level to audio."""
    samples = level.basis_NK.shape[0]
    for index, block in enumerate(decoder.model):
        if not isinstance(block, DecoderBlock):
            continue
        if str(index) in decoder.sr_cond_model:
            _pass_through(decoder.sr_cond_model[str(index)], level.count, linear)
        snake, up, *rest = block.block
        assert isinstance(up, CausalTransposedConv1d)
        _pass_through(snake, level.count, linear)
        samples //= up.stride
        parts_SNK = level.basis_NK.reshape(up.stride, -1, level.count)
        level = karhunen_loeve(correlation_N, samples, _half(up.weight_v.shape[1]))
        # The first taps read this frame, the others the one before.
        _write(up, level.count, {i: level.inverse_KN @ part_NK for i, part_NK in enumerate(parts_SNK)}, linear)
        for layer in rest:
            _pass_through(layer, level.count, linear)
    snake, last = decoder.model[-2:]
    assert isinstance(last, CausalConv1d)
    _pass_through(snake, level.count, linear)
    free_1CW = last.weight_v * (FREE_SHARE * correlation_N[0].sqrt() / last.weight_v.norm())
    _write(last, 1, {-1: level.basis_NK}, linear)
    last.weight_v[:, level.count :] = free_1CW[:, level.count :]
    last.weight_g.copy_(last.weight_v.norm(dim=(1, 2), keepdim=True))


def _write(layer: CausalConv1d, count: int, taps: Mapping[int, Tensor], linear: Linear) -> None:
    """Sets the first `count` output channels to `taps` alone: by position in the kernel, [count, channels in]."""
    transposed = isinstance(layer, CausalTransposedConv1d)
    drawn = layer.weight_v.clone()
    weight_OIW = layer.weight_v.transpose(0, 1) if transposed else layer.weight_v
    weight_OIW[:count] = 0
    for position, tap_OI in taps.items():
        weight_OIW[:count, : tap_OI.shape[1], position] = tap_OI
    gain = layer.weight_v.norm(dim=(1, 2), keepdim=True)
    # Weight norm needs a direction also where there is no gain.
    layer.weight_v.copy_(torch.where(gain > 0, layer.weight_v, drawn))
    layer.weight_g.copy_(gain)
    if layer.bias is not None:
        layer.bias[:count] = 0
    linear[layer] = count


def _pass_through(layer: torch.nn.Module, count: int, linear: Linear) -> None:
    """Makes `layer` pass the first `count` channels unchanged."""
    if isinstance(layer, Snake):
        layer.alpha[:, :count] = STRAIGHT
    elif isinstance(layer, ResidualUnit | NoiseBlock):
        last = layer.block[-1] if isinstance(layer, ResidualUnit) else layer.linear
        assert isinstance(last, CausalConv1d)
        # Its gain and not its direction, which would have no gradient then.
        last.weight_g[:count] = 0
        if last.bias is not None:
            last.bias[:count] = 0
        linear[last] = count
    elif isinstance(layer, SampleRateCondition):
        if layer.kind in ("scale_bias", "scale_bias_init"):
            layer.scale_embed.weight[:, :count] = 1
            layer.bias_embed.weight[:, :count] = 0
        elif layer.kind == "add":
            layer.cond_embed.weight[:, :count] = 0
        for inner in getattr(layer, "out_layer", ()):
            if isinstance(inner, CausalConv1d):
                _write(inner, count, {0: torch.eye(count)}, linear)
            else:
                _pass_through(inner, count, linear)
    else:
        raise TypeError(f"the linear codec cannot pass through a {type(layer).__name__}")


def _coefficients(transform: Transform, audio_BT: Tensor) -> Tensor:
    """Of each frame of all rows, [N, K]."""
    frames_BFN = audio_BT.view(len(audio_BT), -1, transform.basis_NK.shape[0])
    return (frames_BFN @ transform.inverse_KN.T).flatten(0, 1)


def _half(channels: int) -> int:
    return max(1, channels // 2)
