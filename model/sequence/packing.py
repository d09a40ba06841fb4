"""Several samples in one row (report 3.4, design decision 8): no padding, positions restart, documents stay apart.

What no loss reads is not packed either: a target's last patch and AUDIO_END come after the last hidden state that
predicts anything, so they are no input. The last patch is still a target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from model.layers.attention import Documents
from model.sequence.layouts import Layout


@dataclass(frozen=True)
class PackedBatch:
    """N positions, of them A of audio, and G target patches."""

    tokens_N: Tensor
    documents: Documents
    audio_APD: Tensor
    """Patches that are inputs, in order."""
    audio_at_A: Tensor
    """Index in N of each."""
    target_GPD: Tensor
    """Patches to predict."""
    condition_GPD: Tensor
    """The patch before each; zeros before the first."""
    source_G: Tensor
    """Index in N of the position whose hidden state predicts each: the one before it."""
    stop_G: Tensor
    """1 at the last patch of a target, else 0."""

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "PackedBatch":
        """All tensors there, patches in `dtype` (None: as they are)."""
        patches = ("audio_APD", "target_GPD", "condition_GPD")
        moved: dict[str, Any] = {name: getattr(self, name).to(device, dtype) for name in patches}
        for name in ("tokens_N", "audio_at_A", "source_G", "stop_G"):
            moved[name] = getattr(self, name).to(device, non_blocking=True)
        return replace(self, documents=replace(self.documents, device=torch.device(device)), **moved)


def pack(layouts: Sequence[Layout]) -> PackedBatch:
    """One row of these samples, each of which must be closed (a training layout)."""
    if not layouts or not all(layout.closed for layout in layouts):
        raise ValueError("pack() takes one or more training layouts, built with closed=True")
    tokens, audio, audio_at, targets, conditions, sources, stops, lengths = ([] for _ in range(8))  # type: ignore[var-annotated]
    offset = 0
    for layout in layouts:
        length = len(layout) - 2
        target_GPD, num_target = layout.target_GPD, layout.num_target
        tokens.append(layout.tokens_T[:length])
        audio.append(layout.audio_APD[:-1])
        audio_at.append(layout.is_audio_T[:length].nonzero()[:, 0] + offset)
        targets.append(target_GPD)
        conditions.append(torch.cat([torch.zeros_like(target_GPD[:1]), target_GPD[:-1]]))
        sources.append(torch.arange(length - num_target, length) + offset)
        stops.append((torch.arange(num_target) == num_target - 1).long())
        lengths.append(length)
        offset += length
    return PackedBatch(
        torch.cat(tokens),
        Documents(tuple(lengths)),
        torch.cat(audio),
        torch.cat(audio_at),
        torch.cat(targets),
        torch.cat(conditions),
        torch.cat(sources),
        torch.cat(stops),
    )
