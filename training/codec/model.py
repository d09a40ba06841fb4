"""AudioVAE as it is trained: sampled latents, a sample rate for each row, noise that depends on the row alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.checkpoint import load_vae
from model.codec.audio_vae import AudioVAE
from model.config import AudioVAEConfig, VoxCPM2Config, read_config
from model.presets import preset
from training.codec.config import ModelConfig
from voxmill.core.errors import UserError

LOG_VARIANCE = (-20.0, 10.0)
"""Range to which the latents' log variance is clamped before sampling, against overflow."""


class Autoencoder(nn.Module):
    """Audio to latents to audio, with the latents' distribution for the losses."""

    def __init__(self, vae: AudioVAE, *, autocast: bool) -> None:
        super().__init__()
        self.vae, self.autocast = vae, autocast

    def forward(
        self, input_BT: Tensor, rate_B: Tensor, noise_BDL: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(decoded audio [B, T], mean [B, D, L], log variance [B, D, L]), fp32.

        Args:
            rate_B: condition of the decoder, hertz, int32.
            noise_BDL: standard normal; zeros give the mean's audio.
            generators: one per row for `use_noise_block`.
        """
        with torch.autocast(input_BT.device.type, torch.bfloat16, enabled=self.autocast):
            mean_BDL, log_variance_BDL = self.vae.encode_distribution(input_BT)
            mean_BDL, log_variance_BDL = mean_BDL.float(), log_variance_BDL.float().clamp(*LOG_VARIANCE)
            latents_BDL = mean_BDL + noise_BDL * (0.5 * log_variance_BDL).exp()
            decoded_B1T = self.vae.decoder(latents_BDL, rate_B, None, generators)
        return decoded_B1T[:, 0].float(), mean_BDL, log_variance_BDL


def row_generators(seed: int, first: int, count: int) -> list[torch.Generator]:
    """A CPU generator for each crop of the run, by its number: the same on whatever rank."""
    # 48 bits of crop number below 15 of seed: torch takes 63.
    return [torch.Generator().manual_seed(((seed % 2**15) << 48) + index) for index in range(first, first + count)]


def latent_noise(generators: Sequence[torch.Generator], channels: int, frames: int) -> Tensor:
    """Standard normal [B, D, L] on the CPU."""
    return torch.stack([torch.randn(channels, frames, generator=generator) for generator in generators])


def new_vae(config: ModelConfig, seed: int) -> tuple[VoxCPM2Config, AudioVAE]:
    """config.json and AudioVAE to start from. The global RNG stays as it was.

    Raises:
        UserError: `start_from` is no checkpoint, or is set together with keys that it overrides.
    """
    if config.start_from is not None:
        overridden = sorted(config.model_fields_set & {"preset", "audio_vae", "log_variance"})
        if overridden:
            raise UserError(f"model.{overridden[0]} has no effect with model.start_from; leave one of them out")
        whole = read_config(config.start_from)
        vae = load_vae(config.start_from, whole)
        return whole, vae.train().requires_grad_(True)
    whole = preset(config.preset)
    if config.audio_vae is not None:
        update = {"audio_vae_config": config.audio_vae, "feat_dim": config.audio_vae.latent_dim}
        whole = VoxCPM2Config.model_validate(whole.model_dump() | update)
    return whole, random_vae(whole.audio_vae_config, seed, config.log_variance)


def random_vae(config: AudioVAEConfig, seed: int, log_variance: float) -> AudioVAE:
    """Random weights; the latents' log variance begins near `log_variance`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AudioVAE(config)
    assert vae.encoder.fc_logvar.bias is not None
    with torch.no_grad():
        vae.encoder.fc_logvar.bias.add_(log_variance)
    return vae
