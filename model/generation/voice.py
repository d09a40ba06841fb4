"""The voice of a request: its reference and prompt audio as latent patches (report 3.4, spec 4.6).

The released code calls this a prompt cache. Here it is immutable: many requests share one, `extended` returns another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voxmill.core.errors import UserError

if TYPE_CHECKING:
    from model.codec.audio_vae import AudioVAE


@dataclass(frozen=True, eq=False)
class Voice:
    """Patches are [T, patch_size, feat_dim] fp32. `prompt_text` has the words of `prompt_TPD`: both or neither."""

    reference_RPD: Tensor | None = None
    prompt_text: str | None = None
    prompt_TPD: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.prompt_text is None) != (self.prompt_TPD is None):
            raise ValueError("a prompt is audio and its text; give both or neither")

    @property
    def has_prompt(self) -> bool:
        """Whether the request continues a prompt."""
        return self.prompt_TPD is not None

    def extended(self, text: str, patches_GPD: Tensor) -> Voice:
        """This voice with `text`, spoken in `patches_GPD`, appended to the prompt: a long text keeps its voice."""
        if self.prompt_TPD is None:
            return replace(self, prompt_text=text, prompt_TPD=patches_GPD)
        joined_TPD = torch.cat([self.prompt_TPD, patches_GPD.to(self.prompt_TPD)])
        return replace(self, prompt_text=f"{self.prompt_text}{text}", prompt_TPD=joined_TPD)


def load_voice(
    vae: AudioVAE,
    *,
    patch_size: int,
    reference: str | Path | None = None,
    prompt: str | Path | None = None,
    prompt_text: str | None = None,
    trim: bool = False,
) -> Voice:
    """The voice of these audio files.

    Args:
        reference: a recording of the speaker.
        prompt: a recording to be continued, with its words in `prompt_text`.
        trim: cut silence at both ends except 200 ms.

    Raises:
        UserError: a file is missing, unreadable, silent or too short; a prompt without its text, or the reverse.
    """
    from model.generation.prompt_audio import load_prompt

    if prompt is not None and not (prompt_text or "").strip():
        raise UserError(f"{prompt}: a prompt needs its text; give the words spoken in it by --prompt-text")
    if prompt is None and prompt_text is not None:
        raise UserError("a prompt text needs its audio; name the recording by --prompt")
    # Padding goes where the audio does not touch the generated speech: after a reference, before a prompt (spec 4.1).
    reference_RPD = prompt_TPD = None
    if reference is not None:
        reference_RPD = load_prompt(reference, vae, patch_size=patch_size, pad="right", trim=trim)
    if prompt is not None:
        prompt_TPD = load_prompt(prompt, vae, patch_size=patch_size, pad="left", trim=trim)
    return Voice(reference_RPD, prompt_text, prompt_TPD)
