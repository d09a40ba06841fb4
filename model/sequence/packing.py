"""Several samples in one row (report 3.4, design decision 9): no padding, positions restart, documents stay apart.

Positions that no loss reads are not packed either: a target's last patch and AUDIO_END come after the last hidden state
that predicts anything, so they are no input. The last patch is still a target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.layers.attention import Documents
from model.sequence.layouts import Layout


@dataclass(frozen=True)
class PackedBatch:
    """N positions, of them A of audio, and G target patches; patches are [patch_size, feat_dim], the rest int64."""

    tokens_N: Tensor
    """Token ids; AUDIO_PLACE at audio positions."""
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
        """All tensors on `device`, patches in `dtype` (None: unchanged)."""
        return replace(
            self,
            tokens_N=self.tokens_N.to(device, non_blocking=True),
            documents=replace(self.documents, device=torch.device(device)),
            audio_APD=self.audio_APD.to(device, dtype),
            audio_at_A=self.audio_at_A.to(device, non_blocking=True),
            target_GPD=self.target_GPD.to(device, dtype),
            condition_GPD=self.condition_GPD.to(device, dtype),
            source_G=self.source_G.to(device, non_blocking=True),
            stop_G=self.stop_G.to(device, non_blocking=True),
        )


def pack(layouts: Sequence[Layout]) -> PackedBatch:
    """One row of these samples.

    Raises:
        ValueError: there is none, or one of them is open (not a training layout).
    """
    if not layouts or not all(layout.closed for layout in layouts):
        raise ValueError("pack() takes one or more training layouts, built with closed=True")
    lengths = [len(layout) - 2 for layout in layouts]
    offsets = [sum(lengths[:number]) for number in range(len(lengths))]
    placed = list(zip(layouts, lengths, offsets, strict=True))
    targets = [layout.target_GPD for layout in layouts]
    return PackedBatch(
        tokens_N=torch.cat([layout.tokens_T[:length] for layout, length, _ in placed]),
        documents=Documents(tuple(lengths)),
        audio_APD=torch.cat([layout.audio_APD[:-1] for layout in layouts]),
        audio_at_A=torch.cat(
            [layout.is_audio_T[:length].nonzero()[:, 0] + offset for layout, length, offset in placed]
        ),
        target_GPD=torch.cat(targets),
        condition_GPD=torch.cat([torch.cat([torch.zeros_like(x_GPD[:1]), x_GPD[:-1]]) for x_GPD in targets]),
        source_G=torch.cat(
            [torch.arange(length - layout.num_target, length) + offset for layout, length, offset in placed]
        ),
        stop_G=torch.cat([(torch.arange(count) == count - 1).long() for count in map(len, targets)]),
    )
