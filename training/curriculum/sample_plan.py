"""The plan of samples: a clip's description and reference in a mode, and how many positions they take.

Random choices depend on the run's seed, the stream and the sample's number in it alone, so that any process, in any
world, at any time, plans the same sample. Lengths come from the index: planning reads no text and no audio. Free of
torch, since a process of its own plans (`feed/planner.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.curriculum.references import across_languages, preferred
from training.curriculum.sample_order import hashed
from voxmill.data.description_kinds import DEFAULT_SHARES, DescriptionShares, weights_of
from voxmill.data.records import Mode

NOT_PACKED = 2
"""A target's last patch and AUDIO_END are no input (`model.packing`)."""
REFERENCED: tuple[Mode, ...] = ("reference", "controllable")
REASONS = ("", "quarantined", "no_text", "no_description", "no_reference", "too_many_positions")
"""Why a sample cannot be used, by its code; 0: it can."""
Ints = NDArray[Any]


class PlannedSample(NamedTuple):
    """A sample before its text and audio are read.

    Args:
        stream: its index; `number`: its place in the stream's endless order.
        description: which of the clip's descriptions. reference: a clip. length: positions in a packed row.
    """

    mode: Mode
    stream: int
    number: int
    clip: int
    description: int | None
    reference: int | None
    length: int

    @property
    def clips(self) -> tuple[int, ...]:
        """The clips whose audio it holds: its own, and its reference."""
        return (self.clip,) if self.reference is None else (self.clip, self.reference)


@dataclass(frozen=True)
class PlanArrays:
    """What planning knows of N clips; integers of any width, which may be mapped from files.

    tokens: of the text without a description, 0 for no text. description_starts [N + 1]: where a clip's descriptions
    begin in the two arrays after it. description_tokens: of the whole text with it. reference_starts [N + 1]: where a
    clip's references begin in `references`, clip numbers that can be used. bases: by `language`, numbers of the
    languages that they are, or are dialects of.
    """

    seconds: NDArray[Any]
    patches: Ints
    tokens: Ints
    description_starts: Ints
    description_axis: Ints
    description_tokens: Ints
    reference_starts: Ints
    references: Ints
    language: Ints
    bases: Ints


@dataclass(frozen=True)
class PlannedBlock:
    """Plans of some samples: `codes` by `REASONS`; -1 in `descriptions` and `references` for none."""

    codes: NDArray[np.int64]
    descriptions: NDArray[np.int64]
    references: NDArray[np.int64]
    lengths: NDArray[np.int64]


def plan_block(
    clips: Ints,
    numbers: Ints,
    mode: Mode,
    arrays: PlanArrays,
    *,
    seed: int,
    max_positions: int,
    avoid: Ints,
    cross_lingual: float | None = None,
    shares: DescriptionShares = DEFAULT_SHARES,
) -> PlannedBlock:
    """Plans the samples of these clips in a mode.

    A kind of description is drawn by the shares of those that the clip has, and a description among those of the kind;
    a reference among the mined candidates. Where the chosen candidate makes the sample too long or is in `avoid`, the
    next one that fits is taken.

    Args:
        numbers: of the samples, on which choices depend, with `seed`. avoid: clips that may not be used.
        cross_lingual: share of references in another language, where a clip has both kinds; None: as there are.
        shares: of the kinds of descriptions, by mode.
    """
    codes = np.zeros(len(clips), dtype=np.int64)
    descriptions, references = np.full(len(clips), -1), np.full(len(clips), -1)
    tokens = arrays.tokens[clips].astype(np.int64)

    def refuse(code: str, wrong: NDArray[np.bool_]) -> None:
        codes[wrong & (codes == 0)] = REASONS.index(code)

    refuse("quarantined", np.isin(clips, avoid))
    refuse("no_text", tokens == 0)
    weights = weights_of(mode, shares)
    if weights is not None:
        descriptions, with_description = _choose_descriptions(clips, numbers, weights, arrays, seed)
        refuse("no_description", descriptions < 0)
        tokens = with_description
    lengths = positions(tokens, arrays.patches[clips].astype(np.int64))
    if mode in REFERENCED:
        places = _Ragged(arrays.reference_starts, clips)
        candidates = arrays.references[places.flat].astype(np.int64)
        takes = 2 + arrays.patches[candidates].astype(np.int64)
        allowed = ~np.isin(candidates, avoid)
        fits = allowed & (lengths[places.owner] + takes <= max_positions)
        # The order of the candidates is random; leaving one out changes it for no other sample.
        keys = hashed(seed, numbers, 1)[places.owner]
        turns = hashed(0, keys, places.within)
        if cross_lingual is not None:
            across = across_languages(*(arrays.bases[arrays.language[c]] for c in (clips[places.owner], candidates)))
            rolls = (hashed(seed, numbers, 2) / 2.0**64)[places.owner]
            # The other kind comes last.
            later = ~preferred(across, rolls, cross_lingual)
            turns = (turns >> np.uint64(1)) | (later.astype(np.uint64) << np.uint64(63))
        chosen = places.lowest(turns, fits)
        refuse("no_reference", places.counts == 0)
        refuse("quarantined", ~places.any(allowed))
        refuse("too_many_positions", chosen < 0)
        known = chosen >= 0
        references[known] = candidates[chosen[known]]
        lengths[known] += takes[chosen[known]]
    refuse("too_many_positions", lengths > max_positions)
    return PlannedBlock(codes, descriptions, references, lengths - NOT_PACKED)


Counts = TypeVar("Counts", int, Ints)


def positions(num_tokens: Counts, num_patches: Counts) -> Counts:
    """Of a whole sequence without a reference: text, AUDIO_START, target, AUDIO_END."""
    return num_tokens + num_patches + 2


def plan_sample(
    mode: Mode,
    clip: int,
    arrays: PlanArrays,
    *,
    number: int = 0,
    seed: int,
    max_positions: int,
    avoid: Iterable[int] = (),
    cross_lingual: float | None = None,
    shares: DescriptionShares = DEFAULT_SHARES,
) -> PlannedSample | str:
    """One sample outside of all streams, or why it cannot be one, from `REASONS`."""
    avoided = np.array(sorted(avoid), dtype=np.int64)
    block = plan_block(
        np.array([clip]),
        np.array([number]),
        mode,
        arrays,
        seed=seed,
        max_positions=max_positions,
        avoid=avoided,
        cross_lingual=cross_lingual,
        shares=shares,
    )
    if block.codes[0]:
        return REASONS[block.codes[0]]
    description, reference = int(block.descriptions[0]), int(block.references[0])
    return PlannedSample(
        mode,
        0,
        number,
        clip,
        None if description < 0 else description,
        None if reference < 0 else reference,
        int(block.lengths[0]),
    )


class _Ragged:
    """The elements that belong to some clips, one clip's after another's.

    flat: their places in the corpus' array; owner: which of the clips; within: which of its elements.
    """

    def __init__(self, starts: Ints, clips: Ints) -> None:
        begins = starts[clips].astype(np.int64)
        self.counts = starts[clips + 1].astype(np.int64) - begins
        self.firsts = np.cumsum(self.counts) - self.counts
        self.owner = np.repeat(np.arange(len(clips)), self.counts)
        self.within = np.arange(len(self.owner)) - self.firsts[self.owner]
        self.flat = begins[self.owner] + self.within

    def any(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """By clip: whether a flag is set on one of its elements."""
        found: NDArray[np.bool_] = np.bincount(self.owner[flags], minlength=len(self.counts)) > 0
        return found

    def lowest(self, values: NDArray[np.uint64], among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """By clip: the element with the lowest value among the flagged ones; -1 where there is none."""
        chosen = np.full(len(self.counts), -1)
        places = np.flatnonzero(among)
        if not len(places):
            return chosen
        owner, values = self.owner[places], values[places]
        firsts = np.flatnonzero(np.diff(owner, prepend=-1))
        least = np.repeat(np.minimum.reduceat(values, firsts), np.diff(np.append(firsts, len(owner))))
        best = np.flatnonzero(values == least)[::-1]
        # Backwards, so that of equal values the first one stays.
        chosen[owner[best]] = places[best]
        return chosen


def _choose_descriptions(
    clips: Ints, numbers: Ints, weights: Sequence[float], arrays: PlanArrays, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(which of the clip's descriptions, -1 for none; tokens of the text with it).

    Args:
        weights: of the kinds, by their numbers in `description_axis`.
    """
    places = _Ragged(arrays.description_starts, clips)
    axes = arrays.description_axis[places.flat]
    weights_K = np.asarray(weights, dtype=np.float64)
    counts_CK = np.bincount(places.owner * len(weights_K) + axes, minlength=len(clips) * len(weights_K))
    counts_CK = counts_CK.reshape(len(clips), len(weights_K))
    kinds = _draw_kinds((counts_CK > 0) * weights_K, hashed(seed, numbers, 3) / 2.0**64)
    fitting = np.flatnonzero(axes == kinds[places.owner])
    counts = np.bincount(places.owner[fitting], minlength=len(clips))
    chosen, tokens = np.full(len(clips), -1), np.zeros(len(clips), dtype=np.int64)
    known = counts > 0
    drawn = (hashed(seed, numbers, 0) % np.maximum(counts, 1).astype(np.uint64)).astype(np.int64)
    picked = fitting[(np.cumsum(counts) - counts + drawn)[known]]
    chosen[known] = places.within[picked]
    tokens[known] = arrays.description_tokens[places.flat[picked]]
    return chosen, tokens


def _draw_kinds(weights_CK: NDArray[np.float64], rolls_C: NDArray[np.float64]) -> NDArray[np.int64]:
    """A kind of each row in proportion to its weights, -1 where all are 0. `rolls_C`: in [0, 1)."""
    ends_CK = np.cumsum(weights_CK, axis=1)
    kinds: NDArray[np.int64] = (rolls_C[:, None] * ends_CK[:, -1:] >= ends_CK).sum(axis=1)
    kinds[ends_CK[:, -1] == 0] = -1
    return kinds
