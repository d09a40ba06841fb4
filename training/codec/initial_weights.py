"""Initial weights of an AudioVAE: a linear codec, and other channels scaled to the spread of their output.

Under weight norm a layer's scale is a parameter of its own. Set so that every layer's output has a known mean and
spread on real crops (Salimans and Kingma 2016, arXiv 1602.07868, section 3), speech reaches the latents, and the
latents reach the audio, from the first step on. With PyTorch's usual scales a small model spends hundreds of steps on a
decoder that ignores the latents (docs/log.md).
"""

import torch
from torch import Tensor

from model.codec.audio_vae import AudioVAE
from model.codec.layers import CausalConv1d, CausalTransposedConv1d, ResidualUnit
from training.codec.crops import CropSource
from training.codec.linear_codec import begin_linear
from training.codec.model import row_generators

SPECTRUM_CROPS = 256
"""Crops whose spectrum the linear codec is fitted to."""
FIT_CROPS = 16
RESIDUAL_SPREAD = 0.2
"""Spread of a residual unit's output: small against its input, so that eighteen of them do not drown it."""
SMALLEST_SPREAD = 1e-5
"""A channel with a smaller spread is dead on these crops; dividing by it would only amplify rounding."""


@torch.no_grad()
def fit_to_data(vae: AudioVAE, source: CropSource, seed: int) -> None:
    """Changes new weights in place: writes the linear codec, and gives other channels zero mean and unit spread.

    The run's first crops are used, so all ranks compute the same weights. Exceptions: a residual unit has
    `RESIDUAL_SPREAD`, and the audio and the latents' log variance are left as they are.
    """
    linear = begin_linear(vae, source.batch(0, SPECTRUM_CROPS))
    crops = source.batch(0, FIT_CROPS)
    residual = {module.block[-1] for module in vae.modules() if isinstance(module, ResidualUnit)}
    audio = vae.decoder.model[-1]

    def fit(layer: CausalConv1d, _: tuple[Tensor, ...], out_BCT: Tensor) -> Tensor:
        mean_C, spread_C = out_BCT.mean(dim=(0, 2)), out_BCT.std(dim=(0, 2))
        factor_C = (RESIDUAL_SPREAD if layer in residual else 1.0) / spread_C.clamp(min=SMALLEST_SPREAD)
        if layer is audio:
            factor_C.fill_(1)
        else:
            factor_C[: linear.get(layer, 0)] = 1
            mean_C[: linear.get(layer, 0)] = 0
        if isinstance(layer, CausalTransposedConv1d):
            # Its gains are for channels that come in.
            before = layer.weight_v.norm(dim=(1, 2), keepdim=True)
            layer.weight_v.mul_(factor_C[:, None])
            layer.weight_g.mul_(layer.weight_v.norm(dim=(1, 2), keepdim=True) / before)
        else:
            layer.weight_g.mul_(factor_C[:, None, None])
        if layer.bias is not None:
            layer.bias.copy_((layer.bias - mean_C) * factor_C)
            out_BCT = out_BCT - mean_C[:, None]
        return out_BCT * factor_C[:, None]

    layers = [m for m in vae.modules() if isinstance(m, CausalConv1d) and m is not vae.encoder.fc_logvar]
    hooks = [layer.register_forward_hook(fit) for layer in layers]
    try:
        # Not by `encode` and `decode`: without gradients they work in pieces, and a layer would be fitted to the first.
        hidden_BCL = vae.encoder.hidden(crops.input_BT[:, None])
        generators = row_generators(seed, 0, FIT_CROPS) if vae.config.use_noise_block else None
        vae.decoder(vae.encoder.fc_mu(hidden_BCL), crops.rate_B, None, generators)
    finally:
        for hook in hooks:
            hook.remove()
