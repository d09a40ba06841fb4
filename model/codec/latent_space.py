"""The latent space of an AudioVAE: a name that two checkpoints share exactly when their latents are alike.

Latents depend on the encoder alone, so a checkpoint whose decoder was trained further still reads them. The name is of
the tensors, not of the file: `audiovae.pth` and `audiovae.safetensors` of one model are the same space.
"""

import hashlib

from model.codec.audio_vae import AudioVAE


def latent_space(vae: AudioVAE) -> str:
    """sha256 (hex) over names, types, shapes and bytes of the encoder's tensors, its sample rate and its strides."""
    digest = hashlib.sha256(f"{vae.config.sample_rate} {vae.config.encoder_rates}".encode())
    for name, tensor in sorted(vae.encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
