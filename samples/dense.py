"""The dense path: every position, padding included, through every module, then masks. Slow and plain on purpose.

The reference of the packed path in `model/`, which computes only the positions that a loss reads; tests compare
results with it, and `benchmarks/train_step.py` feeds the released code by it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.flow.flow_matching import FlowNoise, flow_error
from model.layers.attention import Documents, Packed
from model.sequence.layouts import Layout
from model.sequence.packing import PackedBatch
from model.voxcpm2 import VoxCPM2


@dataclass(frozen=True)
class DenseBatch:
    """B samples padded to T positions."""

    tokens_BT: Tensor
    patches_BTPD: Tensor
    text_BT: Tensor
    audio_BT: Tensor
    loss_BT: Tensor
    stop_BT: Tensor


def pad(layouts: list[Layout]) -> DenseBatch:
    """Pads training layouts to the longest, right, with zeros."""
    rows, longest = len(layouts), max(len(layout) for layout in layouts)
    shape = layouts[0].audio_APD.shape[1:]
    tokens, text, audio, loss, stop = (torch.zeros(rows, longest, dtype=torch.long) for _ in range(5))
    patches = torch.zeros(rows, longest, *shape)
    for row, layout in enumerate(layouts):
        length = len(layout)
        tokens[row, :length] = layout.tokens_T
        audio[row, :length] = layout.is_audio_T.long()
        text[row, :length] = 1 - audio[row, :length]
        patches[row, :length][layout.is_audio_T] = layout.audio_APD
        loss[row, length - 1 - layout.num_target : length - 1] = 1
        stop[row, length - 2] = 1
    return DenseBatch(tokens, patches, text, audio, loss, stop)


def compact(batch: DenseBatch) -> PackedBatch:
    """The same samples as a packed batch of whole sequences without padding; any masks, also those of the oracle."""
    lengths = ((batch.text_BT + batch.audio_BT) > 0).sum(1).tolist()
    real = torch.arange(batch.tokens_BT.shape[1])[None] < torch.tensor(lengths)[:, None]
    before = F.pad(batch.patches_BTPD, (0, 0, 0, 0, 1, 0))[:, :-1]
    target = batch.loss_BT[real] > 0
    return PackedBatch(
        batch.tokens_BT[real].long(),
        Documents(tuple(lengths)),
        batch.patches_BTPD[batch.audio_BT > 0],
        batch.audio_BT[real].nonzero()[:, 0],
        batch.patches_BTPD[batch.loss_BT > 0],
        before[batch.loss_BT > 0],
        target.nonzero()[:, 0] - 1,
        batch.stop_BT[batch.loss_BT > 0].long(),
    )


def dense_activations(model: VoxCPM2, batch: DenseBatch) -> dict[str, Tensor]:
    """Every activation [B, T, C] by the released module's name."""
    rows, length = batch.tokens_BT.shape
    text, audio = (mask.float().flatten()[:, None] for mask in (batch.text_BT, batch.audio_BT))
    span = Packed(Documents((length,) * rows))
    encoded = model.feat_encoder(batch.patches_BTPD.flatten(0, 1))
    projected = model.enc_to_lm_proj(encoded)
    embedded = text * model.base_lm.embed(batch.tokens_BT.long().flatten()) + audio * projected
    hidden = model.base_lm(embedded, span)
    quantised = model.fsq_layer(hidden)
    mixed = audio * quantised + text * hidden
    fused = model.fusion_concat_proj(torch.cat([mixed, audio * projected], -1))
    residual = model.residual_lm(fused, span)
    shifted, residual_shifted = (_shift(x.unflatten(0, (rows, length))).flatten(0, 1) for x in (mixed, residual))
    activations = {
        "feat_encoder": encoded,
        "enc_to_lm_proj": projected,
        "base_lm": hidden,
        "fsq_layer": quantised,
        "fusion_concat_proj": fused,
        "residual_lm": residual,
        "lm_to_dit_proj": model.lm_to_dit_proj(shifted),
        "res_to_dit_proj": model.res_to_dit_proj(residual_shifted),
        "stop_head": model.stop_logits(shifted),
    }
    return {name: value.unflatten(0, (rows, length)) for name, value in activations.items()}


def dense_losses(
    model: VoxCPM2, batch: DenseBatch, flow_noise: FlowNoise, *, progress: float = 0.0
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(diffusion loss, stop loss, activations); `flow_noise` is for all B * T rows."""
    activations = dense_activations(model, batch)
    mu = torch.stack([activations["lm_to_dit_proj"], activations["res_to_dit_proj"]], dim=2).flatten(0, 1)
    dit = model.config.dit_config
    error = flow_error(
        model.feat_decoder.estimator,
        batch.patches_BTPD.flatten(0, 1),
        mu,
        _shift(batch.patches_BTPD).flatten(0, 1),
        flow_noise,
        dit.cfm_config,
        mean_mode=dit.dit_mean_mode,
        progress=progress,
    )
    weight = batch.loss_BT.float().flatten()
    diffusion = (error * weight[:, None]).sum() / max(float(weight.sum()) * error.shape[1], 1)
    entropy = F.cross_entropy(activations["stop_head"].flatten(0, 1), batch.stop_BT.long().flatten(), reduction="none")
    return diffusion, (entropy * weight).sum() / max(float(weight.sum()), 1), activations


def rows_of(flow_noise: FlowNoise, rows: Tensor) -> FlowNoise:
    """The random numbers of some rows (a mask or indexes)."""
    return FlowNoise(**{name: value[rows] for name, value in vars(flow_noise).items()})


def _shift(hidden_BTX: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(hidden_BTX[:, :1]), hidden_BTX[:, :-1]], dim=1)
