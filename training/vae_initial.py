"""Weights that an AudioVAE begins with: each layer's scale and bias from what passes through it.

Under weight norm a layer's scale is a number of its own. Set so that every layer's output has a known mean and spread on
real crops (Salimans and Kingma 2016, arXiv 1602.07868, section 3), speech reaches the latents, and the latents reach the
audio, from the first step on. With PyTorch's usual scales a small model spends hundreds of steps on a decoder that does not
listen (docs/log.md).
"""

from typing import Any

import torch
from torch import Tensor

from model.audio_vae import AudioVAE
from model.audio_vae_layers import CausalConv1d, CausalTransposedConv1d, ResidualUnit
from training.audio_crops import CropSource
from training.vae_model import row_generators

FIT_CROPS = 16
RESIDUAL_SPREAD = 0.2
"""Of what a residual unit adds: small beside what it is added to, so that eighteen of them do not drown it."""
SMALLEST_SPREAD = 1e-5
"""A channel with less is dead on these crops; dividing by less would only amplify rounding."""


@torch.no_grad()
def fit_to_data(vae: AudioVAE, source: CropSource, seed: int) -> None:
    """Changes scales and biases of new weights in place, so that channels have zero mean and unit spread.

    That is over the run's first `FIT_CROPS` crops, so all ranks come to the same weights. Exceptions: a residual unit adds `RESIDUAL_SPREAD`, the audio has the crops' own spread, and the latents' log variance
    stays as it is. A transposed convolution has a scale for each input channel, so its channels share one.
    """
    crops = source.batch(0, FIT_CROPS)
    spreads: dict[CausalConv1d, float] = {}
    for module in vae.modules():
        if isinstance(module, ResidualUnit):
            last = module.block[-1]
            assert isinstance(last, CausalConv1d)
            spreads[last] = RESIDUAL_SPREAD
    audio = vae.decoder.model[-1]
    assert isinstance(audio, CausalConv1d)
    spreads[audio] = float(crops.aim_BT.std().clamp(min=SMALLEST_SPREAD))

    def fit(layer: CausalConv1d, _: Any, out_BCT: Tensor) -> Tensor:
        wanted = spreads.get(layer, 1.0)
        mean_C = out_BCT.mean(dim=(0, 2))
        if isinstance(layer, CausalTransposedConv1d):
            factor_C = (wanted / out_BCT.std().clamp(min=SMALLEST_SPREAD)).expand_as(mean_C)
            layer.weight_g.mul_(factor_C[0])
        else:
            factor_C = wanted / out_BCT.std(dim=(0, 2)).clamp(min=SMALLEST_SPREAD)
            layer.weight_g.mul_(factor_C[:, None, None])
        if layer.bias is None:
            return out_BCT * factor_C[:, None]
        layer.bias.copy_((layer.bias - mean_C) * factor_C)
        return (out_BCT - mean_C[:, None]) * factor_C[:, None]

    layers = [m for m in vae.modules() if isinstance(m, CausalConv1d) and m is not vae.encoder.fc_logvar]
    hooks = [layer.register_forward_hook(fit) for layer in layers]
    try:
        # Not by `encode` and `decode`: without gradients they go in pieces, and a layer would be fitted to the first one.
        hidden_BCL = vae.encoder.hidden(crops.heard_BT[:, None])
        generators = row_generators(seed, 0, FIT_CROPS) if vae.config.use_noise_block else None
        vae.decoder(vae.encoder.fc_mu(hidden_BCL), crops.rate_B, None, generators)
    finally:
        for hook in hooks:
            hook.remove()
