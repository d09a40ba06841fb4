"""From patches to audio: all at once, or 160 ms at a time (report 3.7, spec 4.4).

In continuation the decoder starts from the last prompt patches in both ways, whose audio is cut off again. The released
streaming starts without them and differs from its full decode; here both give the same signal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.codec.audio_vae import AudioVAE, DecoderStream, push_together
from model.sequence.layouts import Layout

CONTEXT_PATCHES = 3
"""Prompt patches that the decoder gets before the first generated one."""


def context_of(layout: Layout) -> Tensor:
    """The last prompt patches, [0 to 3, patch_size, feat_dim]; none outside continuation."""
    return layout.target_GPD[-CONTEXT_PATCHES:]


def decode(vae: AudioVAE, patches_GPD: Tensor, context_CPD: Tensor, *, seed: int) -> Tensor:
    """The audio of these patches, [G * patch_size * samples_per_latent] fp32 in (-1, 1) on the CPU.

    Args:
        context_CPD: the patches before them, see `context_of`.
        seed: for a decoder with noise (`use_noise_block`, not released).
    """
    whole = torch.cat([context_CPD.to(patches_GPD), patches_GPD])
    audio_BT = vae.decode(_frames([whole], vae), generators=_noise(vae, seed))
    return audio_BT[0, len(context_CPD) * patches_GPD.shape[1] * vae.samples_per_latent :].cpu()


def open_decoder(vae: AudioVAE, context_CPD: Tensor, *, seed: int) -> DecoderStream:
    """One request's decoder, which has decoded the context and nothing else."""
    stream = vae.decoder_stream(generators=_noise(vae, seed))
    if len(context_CPD):
        stream.push(_frames([context_CPD], vae))
    return stream


def decode_next(decoders: Sequence[DecoderStream], patches: Sequence[Tensor]) -> Tensor:
    """The audio of the next patch [patch_size, feat_dim] of each decoder, in one pass: [R, samples] fp32 on the CPU."""
    return push_together(decoders, _frames([patch_PD[None] for patch_PD in patches], decoders[0].vae)).cpu()


def _frames(patches: Sequence[Tensor], vae: AudioVAE) -> Tensor:
    """Rows of patches [G, P, D] as latents [B, D, G * P] of the AudioVAE's device and dtype."""
    device = vae.encoder.fc_mu.weight_v.device
    return torch.stack([patches_GPD.flatten(0, 1).T for patches_GPD in patches]).to(device, vae.dtype)


def _noise(vae: AudioVAE, seed: int) -> list[torch.Generator] | None:
    if not vae.config.use_noise_block:
        return None
    return [torch.Generator(vae.encoder.fc_mu.weight_v.device).manual_seed(seed)]
