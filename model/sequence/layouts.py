"""Sequences of every mode from the report's building blocks (report 3.4 and Table 2, spec 3.1 and 4.1).

    basic, design                   text 101 target
    reference, controllable         103 reference 104 text 101 target
    continuation                    (prompt text + text) 101 prompt target
    the same with a reference       103 reference 104 (prompt text + text) 101 prompt target

The first five are the modes of training (`voxmill.data.records.Mode`); a continuation with a reference exists at
inference only. One function, `arrange`, builds all: in training the target is known and 102 closes it, at inference it
is the prompt's audio or empty and stays open.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxmill.core.errors import UserError

AUDIO_START, AUDIO_END = 101, 102
REFERENCE_START, REFERENCE_END = 103, 104
AUDIO_PLACE = 0
"""Token id of audio positions."""


@dataclass(frozen=True)
class Layout:
    """One sequence of T positions."""

    tokens_T: Tensor
    """Token ids, int64."""
    is_audio_T: Tensor
    """bool."""
    audio_APD: Tensor
    """Patches of the audio positions, in order, [A, patch_size, feat_dim]."""
    num_target: int
    """So many of the last patches are the target (training) or the prompt (inference)."""
    closed: bool
    """Whether AUDIO_END follows the target: the sequence is whole, as in training."""

    def __len__(self) -> int:
        return self.tokens_T.shape[0]

    @property
    def target_GPD(self) -> Tensor:
        """The target's patches, or the prompt's."""
        return self.audio_APD[self.audio_APD.shape[0] - self.num_target :]


def compose_text(text: str, *, description: str | None = None, prompt_text: str | None = None) -> str:
    """The text of a sequence, in one string to be tokenised once: `(description)text`, or prompt text and text.

    Line breaks and runs of white space become one space. Parentheses inside the description are dropped: they would
    end it early.

    Raises:
        UserError: an empty text, or a description together with a prompt.
    """
    if description and prompt_text is not None:
        raise UserError("a description does not work with a prompt; give the voice by --reference, or drop one")
    text = re.sub(r"\s+", " ", text)
    if not text.strip():
        raise UserError("the text is empty; give some words")
    if prompt_text is not None:
        return re.sub(r"\s+", " ", prompt_text) + text
    description = re.sub(r"\s+", " ", re.sub(r"[()（）]", "", description or "")).strip()
    return f"({description}){text}" if description else text


def arrange(
    text: Sequence[int],
    *,
    reference_RPD: Tensor | None = None,
    target_GPD: Tensor | None = None,
    closed: bool,
    patch_shape: tuple[int, int],
    max_length: int,
) -> Layout:
    """Puts the building blocks in their order.

    Args:
        text: token ids of the string that `compose_text` gives.
        reference_RPD: patches of the reference voice, or None.
        target_GPD: in training the target; at inference the prompt's patches, or None.
        closed: True in training.
        patch_shape: (patch_size, feat_dim).
        max_length: positions that the model takes.

    Raises:
        UserError: no text, an empty target in training, or more positions than `max_length`; names their number.
        ValueError: patches of another shape.
    """
    if not len(text):
        raise UserError("the text has no tokens; give some words")
    empty_APD = torch.empty(0, *patch_shape)
    reference_RPD = empty_APD if reference_RPD is None else reference_RPD
    target_GPD = empty_APD if target_GPD is None else target_GPD
    for name, patches in (("reference", reference_RPD), ("target", target_GPD)):
        if tuple(patches.shape[1:]) != patch_shape:
            raise ValueError(
                f"{name} patches are {tuple(patches.shape)} instead of [*, {patch_shape[0]}, {patch_shape[1]}]"
            )
    num_reference, num_target = reference_RPD.shape[0], target_GPD.shape[0]
    if closed and not num_target:
        raise UserError("the target has no audio; leave this sample out")
    tokens: list[int] = []
    if num_reference:
        tokens += [REFERENCE_START, *[AUDIO_PLACE] * num_reference, REFERENCE_END]
    num_prefix = len(tokens)
    tokens += [*text, AUDIO_START]
    start = len(tokens)
    tokens += [AUDIO_PLACE] * num_target + [AUDIO_END] * closed
    if len(tokens) > max_length:
        parts = f"{len(text)} text tokens, {num_reference} reference and {num_target} target patches"
        raise UserError(
            f"{len(tokens)} positions ({parts}), the model takes {max_length}; shorten the text or the audio"
        )
    is_audio_T = torch.zeros(len(tokens), dtype=torch.bool)
    if num_reference:
        is_audio_T[1 : num_prefix - 1] = True
    is_audio_T[start : start + num_target] = True
    audio_APD = torch.cat([reference_RPD, target_GPD.to(reference_RPD)]) if num_reference else target_GPD
    return Layout(torch.tensor(tokens), is_audio_T, audio_APD, num_target, closed)
