"""The plan of a sample: a clip's text, description and reference in a mode, and how many positions they take.

Random choices depend on the run's seed and the sample's number alone, so that any rank, in any world, at any time,
plans the same sample. Lengths are known before any audio is read.
"""

import random
from collections.abc import Container
from dataclasses import dataclass

from torch import Tensor

from model.sequence.layouts import Layout, arrange, compose_text
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus
from training.curriculum.mixture import DrawnSample
from voxmill.core.errors import UserError
from voxmill.data.records import Mode
from voxmill.data.transcript import plain_text

NOT_PACKED = 2
"""A target's last patch and AUDIO_END are no input (`model.packing`)."""


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """A sample before its audio is read. `reference`: a clip; `length`: positions in a packed row."""

    draw: DrawnSample
    tokens: tuple[int, ...]
    reference: int | None
    length: int

    @property
    def mode(self) -> Mode:
        """The mode it is trained in."""
        return self.draw.mode

    @property
    def clips(self) -> tuple[int, ...]:
        """The clips whose audio it holds: its own, and its reference."""
        return (self.draw.clip,) if self.reference is None else (self.draw.clip, self.reference)


def plan_sample(
    draw: DrawnSample,
    corpus: Corpus,
    tokenizer: TextTokenizer,
    *,
    seed: int,
    max_positions: int,
    avoid: Container[int] = frozenset(),
) -> PlannedSample | str:
    """The sample, or why it cannot be one: `quarantined`, `no_text`, `too_many_positions`.

    A description is chosen among those of the mode's axis, a reference among the mined candidates. Where the chosen
    candidate makes the sample too long or is in `avoid`, the next one that fits is taken.
    """
    if draw.clip in avoid:
        return "quarantined"
    choose = random.Random(f"{seed}/{draw.number}")
    description = None
    if draw.mode in ("design", "controllable"):
        description = choose.choice(corpus.descriptions(draw.clip, draw.mode))
    try:
        text = compose_text(plain_text(corpus.text(draw.clip)), description=description)
    except UserError:
        return "no_text"
    tokens = tuple(tokenizer.encode(text))
    if not tokens:
        return "no_text"
    whole = positions(len(tokens), int(corpus.patches[draw.clip]))
    reference = None
    if draw.mode in ("reference", "controllable"):
        candidates = corpus.candidates(draw.clip)
        # Avoided clips are removed after the shuffle: it does not change which reference other samples get.
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
    return PlannedSample(draw, tokens, reference, whole - NOT_PACKED)


def positions(num_tokens: int, num_patches: int) -> int:
    """Of a whole sequence without a reference: text, AUDIO_START, target, AUDIO_END."""
    return num_tokens + num_patches + 2


def layout(sample: PlannedSample, corpus: Corpus, *, max_positions: int) -> Layout:
    """The training sequence of a sample, its latents read from the shards.

    Raises:
        ValueError, OSError: a shard does not match the index, or cannot be read.
    """
    target_GPD = corpus.read(sample.draw.clip).float()
    reference_RPD: Tensor | None = None if sample.reference is None else corpus.read(sample.reference).float()
    arranged = arrange(
        sample.tokens,
        reference_RPD=reference_RPD,
        target_GPD=target_GPD,
        closed=True,
        patch_shape=(target_GPD.shape[1], target_GPD.shape[2]),
        max_length=max_positions,
    )
    assert len(arranged) - NOT_PACKED == sample.length, "the index and the shard differ in length"
    return arranged
