"""One clip shown in a mode: its text, its description, its reference; and how many positions that takes.

Everything that is chosen at random comes from the run's seed and the sample's number alone, so that any rank, in any
world, at any time, shows the same sample. Lengths are known before any audio is read.
"""

import random
from collections.abc import Container
from dataclasses import dataclass

from torch import Tensor

from annotation.descriptions.cleaning import plain_text
from model.sequence.layouts import Layout, arrange, compose_text
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus
from training.curriculum.mixture import Draw
from voxmill.core.errors import UserError
from voxmill.data.records import Mode

NOT_PACKED = 2
"""A target's last patch and AUDIO_END are no input (`model.packing`)."""


@dataclass(frozen=True)
class Shown:
    """A sample before its audio is read. `length`: positions in a packed row."""

    draw: Draw
    tokens: tuple[int, ...]
    reference: int | None
    length: int

    @property
    def mode(self) -> Mode:
        """The mode it is shown in."""
        return self.draw.mode

    @property
    def clips(self) -> tuple[int, ...]:
        """Whose audio it holds: its own, and its reference."""
        return (self.draw.clip,) if self.reference is None else (self.draw.clip, self.reference)


def show(
    draw: Draw,
    corpus: Corpus,
    tokenizer: TextTokenizer,
    *,
    seed: int,
    max_positions: int,
    avoid: Container[int] = frozenset(),
) -> Shown | str:
    """The sample, or why it cannot be one: `quarantined`, `no_text`, `too_many_positions`.

    A description is drawn among those of the mode's axis, a reference among the mined candidates. Where the drawn
    candidate makes the sample too long or is to be avoided, the next one that fits is taken.
    """
    if draw.clip in avoid:
        return "quarantined"
    choose = random.Random(f"{seed}/{draw.number}")
    description = None
    if draw.mode in ("design", "controllable"):
        description = choose.choice(corpus.descriptions(draw.clip, draw.mode))
    try:
        text = compose_text(plain_text(corpus.value(draw.clip, "text") or ""), description=description)
    except UserError:
        return "no_text"
    tokens = tuple(tokenizer.encode(text))
    if not tokens:
        return "no_text"
    whole = positions(len(tokens), int(corpus.patches[draw.clip]))
    reference = None
    if draw.mode in ("reference", "controllable"):
        candidates = corpus.candidates(draw.clip)
        # What is avoided is left out after the shuffle: samples of other references stay what they were.
        choose.shuffle(candidates)
        candidates = [clip for clip in candidates if clip not in avoid]
        if not candidates:
            return "quarantined"
        room = [clip for clip in candidates if whole + 2 + int(corpus.patches[clip]) <= max_positions]
        if not room:
            return "too_many_positions"
        reference = room[0]
        whole += 2 + int(corpus.patches[reference])
    if whole > max_positions:
        return "too_many_positions"
    return Shown(draw, tokens, reference, whole - NOT_PACKED)


def positions(num_tokens: int, num_patches: int) -> int:
    """Of a whole sequence without a reference: text, AUDIO_START, target, AUDIO_END."""
    return num_tokens + num_patches + 2


def layout(shown: Shown, corpus: Corpus, *, max_positions: int) -> Layout:
    """The training sequence of a sample, its latents read from the shards.

    Raises:
        ValueError, OSError: a shard does not hold what the index says, or cannot be read.
    """
    target_GPD = corpus.read(shown.draw.clip).float()
    reference_RPD: Tensor | None = None if shown.reference is None else corpus.read(shown.reference).float()
    made = arrange(
        shown.tokens,
        reference_RPD=reference_RPD,
        target_GPD=target_GPD,
        closed=True,
        patch_shape=(target_GPD.shape[1], target_GPD.shape[2]),
        max_length=max_positions,
    )
    assert len(made) - NOT_PACKED == shown.length, "the index and the shard differ in length"
    return made
