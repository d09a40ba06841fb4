"""VoxCPM2 without its AudioVAE: the module tree with the released names, and the training forward (report 3.1, eq. 1).

    LocEnc ─▶ TSLM ─▶ FSQ ─▶ fusion ─▶ RALM ─▶ LocDiT            stop predictor on TSLM-FSQ

LocEnc runs on audio positions only, LocDiT and the stop predictor on target patches only; see `packing`.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VoxCPM2Config
from model.flow.flow_matching import FlowNoise, draw_flow_noise, flow_error
from model.flow.losses import LossSums, loss_sums, sample_sums
from model.layers.attention import Packed, Span
from model.layers.fsq import FSQ
from model.layers.locdit import LocDiT
from model.layers.locenc import LocEnc
from model.layers.transformer import MiniCPM
from model.sequence.packing import PackedBatch


class LocDiTDecoder(nn.Module):
    """Holds the estimator under its released name."""

    def __init__(self, config: VoxCPM2Config) -> None:
        super().__init__()
        self.estimator = LocDiT(config)


class VoxCPM2(nn.Module):
    """The language-model core, 577 tensors at the released size."""

    def __init__(self, config: VoxCPM2Config) -> None:
        super().__init__()
        self.config = config
        size = config.lm_config.hidden_size
        enc_size, dit_size = config.encoder_config.hidden_dim, config.dit_config.hidden_dim
        self.base_lm = MiniCPM(config.lm_config)
        self.residual_lm = MiniCPM(config.residual_stack, max_positions=config.lm_config.max_position_embeddings)
        self.feat_encoder = LocEnc(config)
        self.feat_decoder = LocDiTDecoder(config)
        self.fsq_layer = FSQ(size, latent=config.scalar_quantization_latent_dim, scale=config.scalar_quantization_scale)
        self.enc_to_lm_proj = nn.Linear(enc_size, size)
        self.lm_to_dit_proj = nn.Linear(size, dit_size)
        self.res_to_dit_proj = nn.Linear(size, dit_size)
        self.fusion_concat_proj = nn.Linear(2 * size, size)
        self.stop_proj = nn.Linear(size, size)
        self.stop_head = nn.Linear(size, 2, bias=False)

    def encode_patches(self, patches_APD: Tensor) -> Tensor:
        """LocEnc and its projection: one LM vector a patch, [A, hidden]."""
        projected_AC: Tensor = self.enc_to_lm_proj(self.feat_encoder(patches_APD))
        return projected_AC

    def backbone(
        self, tokens_N: Tensor, audio_APD: Tensor, audio_at_A: Tensor, base_span: Span, residual_span: Span
    ) -> tuple[Tensor, Tensor]:
        """(TSLM-FSQ hidden states, RALM hidden states), [N, hidden] each.

        Args:
            tokens_N: text ids, int64; those at audio positions have no effect.
            audio_APD: patches of the positions `audio_at_A`, which are indexes into N.
            base_span, residual_span: which tokens attend to which; two because each stack has its own cache.
        """
        embedded_NC = self.base_lm.embed(tokens_N)
        audio_AC = self.encode_patches(audio_APD).to(embedded_NC.dtype)
        hidden_NC = self.base_lm(embedded_NC.index_copy(0, audio_at_A, audio_AC), base_span)
        quantised_AC = self.fsq_layer(hidden_NC[audio_at_A]).to(hidden_NC.dtype)
        hidden_NC = hidden_NC.index_copy(0, audio_at_A, quantised_AC)
        acoustic_NC = torch.zeros_like(hidden_NC).index_copy(0, audio_at_A, audio_AC.to(hidden_NC.dtype))
        fused_NC = self.fusion_concat_proj(torch.cat([hidden_NC, acoustic_NC], dim=-1))
        return hidden_NC, self.residual_lm(fused_NC, residual_span)

    def condition(self, lm_NC: Tensor, residual_NC: Tensor) -> Tensor:
        """LocDiT's two condition tokens, [N, 2, dit hidden]."""
        return torch.stack([self.lm_to_dit_proj(lm_NC), self.res_to_dit_proj(residual_NC)], dim=1)

    def stop_logits(self, lm_NC: Tensor) -> Tensor:
        """[N, 2]: the logits of continuing and of stopping."""
        logits_N2: Tensor = self.stop_head(F.silu(self.stop_proj(lm_NC)))
        return logits_N2

    def forward(
        self,
        batch: PackedBatch,
        *,
        flow_noise: FlowNoise | None = None,
        generator: torch.Generator | None = None,
        progress: float = 0.0,
        by_sample: bool = False,
    ) -> LossSums:
        """Both losses of a packed batch.

        Args:
            flow_noise: random numbers from outside; None draws them from `generator` (None: the global one).
            progress: share of the training done, 0 to 1.
            by_sample: fill `LossSums.samples_SK`, too; the losses stay the same to the last bit.
        """
        dit = self.config.dit_config
        if flow_noise is None:
            flow_noise = draw_flow_noise(batch.target_GPD, dit.cfm_config, generator=generator)
        span = Packed(batch.documents)
        hidden_NC, residual_NC = self.backbone(batch.tokens_N, batch.audio_APD, batch.audio_at_A, span, span)
        lm_GC, residual_GC = hidden_NC[batch.source_G], residual_NC[batch.source_G]
        error_GP = flow_error(
            self.feat_decoder.estimator,
            batch.target_GPD,
            self.condition(lm_GC, residual_GC),
            batch.condition_GPD,
            flow_noise,
            dit.cfm_config,
            mean_mode=dit.dit_mean_mode,
            progress=progress,
        )
        logits_G2 = self.stop_logits(lm_GC)
        sums = loss_sums(error_GP, logits_G2, batch.stop_G)
        if not by_sample:
            return sums
        sample_G, num_samples = batch.documents.ids_N[batch.source_G], len(batch.documents.lengths)
        return replace(
            sums, samples_SK=sample_sums(error_GP, logits_G2, batch.stop_G, sample_G, num_samples=num_samples)
        )
