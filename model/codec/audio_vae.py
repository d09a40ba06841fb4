"""AudioVAE V2 (report 3.2): 16 kHz audio to 25 latent frames a second, and back at 48 kHz.

Encoder and decoder are causal, so long audio passes in pieces of bounded memory and a `DecoderStream` gives audio as
its latents come; both equal the pass over the whole. Where the released decoder keeps a stream's state in the module,
here each stream owns its state, and several can share one pass.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.codec.layers import (
    CausalConv1d,
    CausalTransposedConv1d,
    History,
    NoiseBlock,
    ResidualUnit,
    SampleRateCondition,
    Snake,
)
from model.config import AudioVAEConfig

DILATIONS = (1, 3, 9)
PIECE, ACCELERATOR_PIECE = 32, 256
"""Latent frames per piece where nobody trains: enough to keep the arithmetic busy, few enough to bound memory."""


class EncoderBlock(nn.Module):
    """Three residual units, then down by the stride: [B, C, T] to [B, 2 C, T / stride]."""

    def __init__(self, channels: int, *, stride: int, depthwise: bool) -> None:
        super().__init__()
        groups = channels if depthwise else 1
        self.block = nn.ModuleList(
            [
                *(ResidualUnit(channels, dilation=dilation, groups=groups) for dilation in DILATIONS),
                Snake(channels),
                CausalConv1d(channels, 2 * channels, 2 * stride, stride=stride),
            ]
        )

    def forward(self, x_BCT: Tensor, history: History | None = None) -> Tensor:
        *units, snake, down = self.block
        for unit in units:
            x_BCT = unit(x_BCT, history)
        result_BCT: Tensor = down(snake(x_BCT), history)
        return result_BCT


class Encoder(nn.Module):
    """Audio [B, 1, T] to the latents' mean and log variance [B, D, L]."""

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        channels = config.encoder_dim
        self.block = nn.ModuleList([CausalConv1d(1, channels, 7)])
        for stride in config.encoder_rates:
            self.block.append(EncoderBlock(channels, stride=stride, depthwise=config.depthwise))
            channels *= 2
        self.fc_mu = CausalConv1d(channels, config.latent_dim, 3)
        self.fc_logvar = CausalConv1d(channels, config.latent_dim, 3)

    def hidden(self, x_B1T: Tensor, history: History | None = None) -> Tensor:
        """The input of both heads, [B, C, L]."""
        x_BCT = x_B1T
        for block in self.block:
            x_BCT = block(x_BCT, history)
        return x_BCT


class DecoderBlock(nn.Module):
    """Upsampling, noise where configured, three residual units: [B, C, T] to [B, C / 2, T * stride]."""

    def __init__(self, num_in: int, num_out: int, *, stride: int, config: AudioVAEConfig) -> None:
        super().__init__()
        groups = num_out if config.depthwise else 1
        self.block = nn.ModuleList([Snake(num_in), CausalTransposedConv1d(num_in, num_out, stride=stride)])
        if config.use_noise_block:
            self.block.append(NoiseBlock(num_out))
        self.block.extend(ResidualUnit(num_out, dilation=dilation, groups=groups) for dilation in DILATIONS)

    def forward(
        self, x_BCT: Tensor, history: History | None, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        snake, up, *rest = self.block
        x_BCT = up(snake(x_BCT), history)
        for layer in rest:
            x_BCT = layer(x_BCT, generators if isinstance(layer, NoiseBlock) else history)
        return x_BCT


class Decoder(nn.Module):
    """Latents [B, D, L] to audio [B, 1, T], conditioned on the bandwidth unless `sr_bin_boundaries` is None."""

    sr_bin_boundaries: Tensor | None

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        latent, channels = config.latent_dim, config.decoder_dim
        if config.depthwise:
            self.model = nn.ModuleList(
                [CausalConv1d(latent, latent, 7, groups=latent), CausalConv1d(latent, channels, 1)]
            )
        else:
            self.model = nn.ModuleList([CausalConv1d(latent, channels, 7)])
        self.sr_cond_model = nn.ModuleDict()  # by position in `model`, as the released names have it
        for index, stride in enumerate(config.decoder_rates):
            wide, narrow = channels // 2**index, channels // 2 ** (index + 1)
            if config.sr_bin_boundaries is not None:
                self.sr_cond_model[str(len(self.model))] = SampleRateCondition(wide, config)
            self.model.append(DecoderBlock(wide, narrow, stride=stride, config=config))
        self.model.extend([Snake(narrow), CausalConv1d(narrow, 1, 7)])
        bounds = config.sr_bin_boundaries
        self.register_buffer("sr_bin_boundaries", None if bounds is None else torch.tensor(bounds, dtype=torch.int32))

    def forward(
        self,
        latents_BDL: Tensor,
        rate_B: Tensor,
        history: History | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """`rate_B`: target sample rate in hertz, int32, one for each row or one for all ([1])."""
        bin_B = None if self.sr_bin_boundaries is None else torch.bucketize(rate_B, self.sr_bin_boundaries)
        x_BCT = latents_BDL
        for index, layer in enumerate(self.model):
            if isinstance(layer, DecoderBlock):
                if bin_B is not None:
                    x_BCT = self.sr_cond_model[str(index)](x_BCT, bin_B)
                x_BCT = layer(x_BCT, history, generators)
            else:
                x_BCT = layer(x_BCT) if isinstance(layer, Snake) else layer(x_BCT, history)
        return torch.tanh(x_BCT)


class AudioVAE(nn.Module):
    """Encoder and decoder under their released names. Weights stay fp32, whatever the language model's dtype."""

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @property
    def hop(self) -> int:
        """Samples of one latent frame at the encoder's rate (640 at 16 kHz released)."""
        return math.prod(self.config.encoder_rates)

    @property
    def samples_per_latent(self) -> int:
        """Samples of one latent frame at the decoder's rate (1920 at 48 kHz released)."""
        return math.prod(self.config.decoder_rates)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of the latents and audio that are returned."""
        return self.encoder.fc_mu.weight_v.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.encoder.fc_mu.weight_v.device

    @property
    def _piece(self) -> int:
        return PIECE if self.device.type == "cpu" else ACCELERATOR_PIECE

    def freeze(self) -> Self:
        """Eval mode, no gradients, weight norm computed once (until `train()` or new weights); returns itself."""
        self.eval().requires_grad_(False)
        for layer in self.modules():
            if isinstance(layer, CausalConv1d):
                layer.fold()
        return self

    def encode_distribution(self, audio_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [B, D, L] of the latents of mono audio [B, T].

        Args:
            audio_BT: at `config.sample_rate` (16 kHz), in [-1, 1]; zeros pad it on the right to whole latent frames.

        Raises:
            ValueError: not two dimensions, or no samples.
        """
        if audio_BT.ndim != 2 or not audio_BT.shape[1]:
            raise ValueError(f"audio must be [B, T] with T > 0, not {tuple(audio_BT.shape)}")
        audio_BT = F.pad(audio_BT.to(self.dtype), (0, -audio_BT.shape[1] % self.hop))
        if torch.is_grad_enabled():
            hidden_BCL = self.encoder.hidden(audio_BT[:, None])
        else:
            history, pieces = History(), audio_BT[:, None].split(self._piece * self.hop, dim=-1)
            hidden_BCL = torch.cat([self.encoder.hidden(piece, history) for piece in pieces], dim=-1)
        return self.encoder.fc_mu(hidden_BCL), self.encoder.fc_logvar(hidden_BCL)

    def encode(self, audio_BT: Tensor) -> Tensor:
        """Latents [B, D, L] of mono audio: the mean, without sampling, as training and prompts use it.

        Arguments and errors as in `encode_distribution`.
        """
        return self.encode_distribution(audio_BT)[0]

    def decode(
        self,
        latents_BDL: Tensor,
        *,
        sample_rate: int | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Audio [B, T] in (-1, 1) at `config.out_sample_rate`, T = L * `samples_per_latent`.

        Args:
            sample_rate: target bandwidth, as a sample rate in hertz; the rate of the result does not change.
                None: `config.out_sample_rate`.
            generators: one for each row, for the noise of `use_noise_block`; None: the global one.

        Raises:
            ValueError: a `sample_rate` for a decoder that has no such condition.
        """
        latents_BDL = latents_BDL.to(self.dtype)
        rate_1 = self.rates([sample_rate], latents_BDL.device)
        if torch.is_grad_enabled():
            audio_B1T: Tensor = self.decoder(latents_BDL, rate_1, None, generators)
            return audio_B1T[:, 0]
        history, pieces = History(), latents_BDL.split(self._piece, dim=-1)
        return torch.cat([self.decoder(piece, rate_1, history, generators) for piece in pieces], dim=-1)[:, 0]

    def decoder_stream(
        self,
        batch: int = 1,
        sample_rate: int | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> "DecoderStream":
        """A new stream of `batch` rows that has decoded nothing yet; arguments and errors as in `decode`."""
        self.rates([sample_rate], torch.device("cpu"))
        return DecoderStream(self, batch, sample_rate, generators)

    def rates(self, sample_rates: Sequence[int | None], device: torch.device) -> Tensor:
        """These target rates in hertz as the decoder takes them, [R] int32; errors as in `decode`."""
        if self.config.sr_bin_boundaries is None and set(sample_rates) - {None, self.config.out_sample_rate}:
            raise ValueError(
                "this AudioVAE has no sample-rate condition (sr_bin_boundaries is null); leave sample_rate out"
            )
        known = [rate or self.config.out_sample_rate for rate in sample_rates]
        return torch.tensor(known, dtype=torch.int32, device=device)


class DecoderStream:
    """Audio while its latents arrive: pieces of any lengths join to the audio that `decode` gives for all at once."""

    def __init__(
        self,
        vae: AudioVAE,
        batch: int,
        sample_rate: int | None,
        generators: Sequence[torch.Generator] | None,
    ) -> None:
        self.vae, self.batch, self.sample_rate, self.generators = vae, batch, sample_rate, generators
        self.history = History()

    def push(self, latents_BDL: Tensor) -> Tensor:
        """Audio [B, L * `samples_per_latent`] of the next latents [B, D, L]."""
        return push_together([self], latents_BDL)


@torch.no_grad()
def push_together(streams: Sequence[DecoderStream], latents_BDL: Tensor) -> Tensor:
    """One decoder pass for the next latents of several streams of one AudioVAE, [B, L * `samples_per_latent`].

    Args:
        latents_BDL: rows of the first stream, then of the second, and so on; L is the same for all. Streams that have
            decoded nothing yet may share a pass with those that have.

    Raises:
        ValueError: the number of rows is not that of the streams.
    """
    vae, sizes = streams[0].vae, [stream.batch for stream in streams]
    if sum(sizes) != latents_BDL.shape[0]:
        raise ValueError(f"{latents_BDL.shape[0]} rows of latents for streams of {sizes} rows")
    latents_BDL = latents_BDL.to(vae.dtype)
    rates = [stream.sample_rate for stream in streams for _ in range(stream.batch)]
    generators = None
    if vae.config.use_noise_block and all(stream.generators is not None for stream in streams):
        generators = [generator for stream in streams for generator in stream.generators or ()]
    history = History.join([stream.history for stream in streams], sizes) if len(streams) > 1 else streams[0].history
    audio_B1T: Tensor = vae.decoder(latents_BDL, vae.rates(rates, latents_BDL.device), history, generators)
    if len(streams) > 1:
        for stream, part in zip(streams, history.split(sizes), strict=True):
            stream.history = part
    return audio_B1T[:, 0]
