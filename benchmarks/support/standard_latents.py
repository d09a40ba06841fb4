"""An AudioVAE on another scale: the same codec, its latents with mean 0 and deviation 1 in every channel.

An AudioVAE that was trained for minutes has latents of small deviation around large means, and flow matching from
unit noise then learns the means first and the speech in them late. The scale is folded into the last layer before the
latents and the first one after, so the result is a plain AudioVAE in the released layout.
"""

import torch
from torch import Tensor

from model.codec.audio_vae import AudioVAE
from model.codec.layers import CausalConv1d

SMALLEST = 1e-2
"""Of the largest channel's deviation: a channel with less is not scaled up to noise."""


@torch.no_grad()
def standardised(vae: AudioVAE, latents_LD: Tensor) -> AudioVAE:
    """The codec whose latents of that audio have mean 0 and deviation 1; frozen.

    It gives the same audio except at the start: the zeros that its decoder's first layer reads before the first frame
    are another latent now, so the first `kernel - 1` frames differ.
    """
    mean_D, scale_D = latents_LD.mean(0), latents_LD.std(0)
    scale_D = scale_D.clamp_min(float(scale_D.max()) * SMALLEST)
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    state["encoder.fc_mu.weight_g"] /= scale_D[:, None, None]
    state["encoder.fc_mu.bias"] = (state["encoder.fc_mu.bias"] - mean_D) / scale_D
    state["encoder.fc_logvar.bias"] -= 2 * scale_D.log()
    first = vae.decoder.model[0]
    assert isinstance(first, CausalConv1d), "the decoder begins with a convolution"
    weight_OIK = first.weight
    # Depthwise, an output channel has one input channel, its own.
    depthwise = first.groups > 1
    scale_OIK = scale_D[:, None, None] if depthwise else scale_D[None, :, None]
    mean_OIK = mean_D[:, None, None] if depthwise else mean_D[None, :, None]
    state["decoder.model.0.bias"] += (weight_OIK * mean_OIK).sum(dim=(1, 2))
    scaled_OIK = weight_OIK * scale_OIK
    state["decoder.model.0.weight_v"] = scaled_OIK
    state["decoder.model.0.weight_g"] = scaled_OIK.norm(dim=(1, 2), keepdim=True)
    made = AudioVAE(vae.config)
    made.load_state_dict(state)
    return made.freeze()
