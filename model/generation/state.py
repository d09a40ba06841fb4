"""The model's part of generation: sequences in, a state out; a patch in, the next state out (report 3.7, spec 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.layers.attention import Documents, Packed, Span
from model.layers.kv_cache import GROWTH, KVCache
from model.sequence.layouts import Layout
from model.voxcpm2 import VoxCPM2


@dataclass
class State:
    """The input of the next patch, a row a request: the hidden states that predict it and everything before it."""

    lm_RC: Tensor
    residual_RC: Tensor
    condition_RPD: Tensor
    """The previous patch; zeros before the first."""
    base: KVCache
    residual: KVCache

    def select(self, rows: list[int]) -> "State":
        """These rows, in this order."""
        index = torch.tensor(rows, device=self.lm_RC.device)
        return State(
            self.lm_RC[index],
            self.residual_RC[index],
            self.condition_RPD[index],
            self.base.select(rows),
            self.residual.select(rows),
        )

    @staticmethod
    def join(states: Sequence["State"]) -> "State":
        """The rows of all, in order."""
        return State(
            torch.cat([state.lm_RC for state in states]),
            torch.cat([state.residual_RC for state in states]),
            torch.cat([state.condition_RPD for state in states]),
            KVCache.join([state.base for state in states]),
            KVCache.join([state.residual for state in states]),
        )


def read(model: VoxCPM2, layouts: Sequence[Layout]) -> State:
    """Reads open sequences, packed without padding; returns the state that predicts each one's first patch."""
    config, lengths = model.config, tuple(len(layout) for layout in layouts)
    device, dtype = device_and_dtype(model)
    documents = Documents(lengths, device)
    caches = [
        KVCache.empty(stack, rows=len(layouts), capacity=max(lengths) + GROWTH, dtype=dtype, device=device)
        for stack in (config.lm_config, config.residual_stack)
    ]
    hidden_NC, residual_NC = model.backbone(
        torch.cat([layout.tokens_T for layout in layouts]).to(device),
        torch.cat([layout.audio_APD for layout in layouts]).to(device, dtype),
        torch.cat([layout.is_audio_T for layout in layouts]).nonzero()[:, 0].to(device),
        *(Packed(documents, cache) for cache in caches),
    )
    for cache in caches:
        cache.lengths = list(lengths)
    ends = torch.tensor(documents.ends, device=device)
    condition_RPD = torch.stack([_last_patch(layout) for layout in layouts]).to(device, dtype)
    return State(hidden_NC[ends], residual_NC[ends], condition_RPD, *caches)


def advance(model: VoxCPM2, patches_RPD: Tensor, base: Span, residual: Span) -> tuple[Tensor, Tensor]:
    """(TSLM-FSQ hidden states, RALM hidden states), [R, hidden] each, after these patches."""
    audio_RC = model.encode_patches(patches_RPD).to(patches_RPD.dtype)
    lm_RC = model.fsq_layer(model.base_lm(audio_RC, base))
    fused_RC = model.fusion_concat_proj(torch.cat([lm_RC, audio_RC], dim=-1))
    return lm_RC, model.residual_lm(fused_RC, residual)


def device_and_dtype(model: VoxCPM2) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the model, packed or not."""
    weight = model.base_lm.norm.weight
    return weight.device, weight.dtype


def _last_patch(layout: Layout) -> Tensor:
    """The patch before the first generated one, [P, D]: the prompt's last, or zeros after AUDIO_START."""
    if layout.num_target:
        return layout.audio_APD[-1]
    return torch.zeros(layout.audio_APD.shape[1:])
