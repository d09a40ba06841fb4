"""What is lasting in a voice is decided over all clips of its speaker, not clip by clip.

Of every speaker there is a tally: sums of whole numbers over clips, so that those of several buckets add up to the same
in any order. Gender: each classifier votes by itself, with its probability in every clip, and abstains where its votes
are mixed; where two classifiers that have decided say different things, nobody knows. Of the measures that a voice's
register and texture follow from, the tally counts cells of a grid, which have a median.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import Field

from annotation.corpus.grid_counts import cell_of, weighted_median
from voxmill.core.config import Config
from voxmill.data.records import Prosody

_CELLS = {"f0_median_hz": 8, "hnr_db": 8, "jitter": 1024, "cpp_db": 8, "creak_share": 128}
"""Cells a unit: semitone, dB, whole ratio."""
LASTING = tuple(_CELLS)
"""Measures of a clip of which a speaker's median counts; pitch in semitones over 1 Hz."""
_UNIT = 1 << 20
"""Probabilities are summed as whole parts of this many."""


class TraitsConfig(Config):
    """When a trait of a speaker is decided."""

    gender_share: float = Field(0.65, gt=0.5, le=1.0)
    """A classifier decides a speaker's gender where its mean probability over the clips (0.5..1) reaches this."""
    trees_share: float = Field(0.98, gt=0.5, le=1.0)
    """The same of the embedded trees, which are too sure: a lively man's clips had 0.97 of a woman's voice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """Of one classifier: the clips that it has answered, and the sum of its probabilities of a female voice."""

    clips: int = 0
    female: int = 0

    @classmethod
    def of(cls, female: float) -> "Votes":
        """Of one clip."""
        return cls(clips=1, female=round(female * _UNIT))

    def __add__(self, other: "Votes") -> "Votes":
        return Votes(clips=self.clips + other.clips, female=self.female + other.female)

    @property
    def share(self) -> float:
        """Mean probability of a female voice, 0..1."""
        return self.female / self.clips / _UNIT


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerTally:
    """Sums over a speaker's clips. `gender`: votes by classifier. `measures`: clips by measure and cell."""

    clips: int = 0
    gender: Mapping[str, Votes] = field(default_factory=dict)
    measures: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def __add__(self, other: "SpeakerTally") -> "SpeakerTally":
        gender = dict(self.gender)
        for source, votes in other.gender.items():
            gender[source] = gender[source] + votes if source in gender else votes
        measures = {name: dict(cells) for name, cells in self.measures.items()}
        for name, cells in other.measures.items():
            own = measures.setdefault(name, {})
            for cell, clips in cells.items():
                own[cell] = own.get(cell, 0) + clips
        return SpeakerTally(clips=self.clips + other.clips, gender=gender, measures=measures)


def count_measures(values: Mapping[str, float | None]) -> dict[str, dict[int, int]]:
    """The cells of one clip's measures, for a tally."""
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return {name: {int(cell_of(np.array([value]), _CELLS[name])[0]): 1} for name, value in known.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenderVotes:
    """Of one classifier over a speaker's clips. `female`: its mean probability, 0..1."""

    source: str
    clips: int
    female: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceMedian:
    """Of one measure over a speaker's clips; `value` as `Prosody` has it."""

    measure: str
    clips: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerTraits:
    """A speaker in the dataset's table.

    named: whether the manifest or a correction names it; else it is a cluster of one session. voice: medians of
    `LASTING`.
    gender, gender_probability: None where nobody has decided; the reason then: `no_votes`, `mixed`, `disagree`.
    """

    speaker: str
    named: bool
    clips: int
    gender: str | None
    gender_probability: float | None
    gender_reason: str
    votes: tuple[GenderVotes, ...]
    voice: tuple[VoiceMedian, ...] = ()

    def of_voice(self, prosody: Prosody) -> Prosody:
        """The measures of a clip with the speaker's own where there are some: what the voice is like, not the clip."""
        medians: dict[str, float] = {median.measure: median.value for median in self.voice}
        return replace(prosody, **medians)  # type: ignore[arg-type]

    @property
    def gender_probabilities(self) -> dict[str, float]:
        """Of both genders; empty where nobody has decided."""
        if self.gender is None or self.gender_probability is None:
            return {}
        other = "male" if self.gender == "female" else "female"
        return {self.gender: self.gender_probability, other: 1 - self.gender_probability}


def decide_traits(speaker: str, named: bool, tally: SpeakerTally, config: TraitsConfig) -> SpeakerTraits:
    """What the sums over all clips of a speaker say of it."""
    gender, probability, reason = decide_gender(tally.gender, config)
    return SpeakerTraits(
        speaker=speaker,
        named=named,
        clips=tally.clips,
        gender=gender,
        gender_probability=probability,
        gender_reason=reason,
        votes=tuple(
            GenderVotes(source=source, clips=votes.clips, female=round(votes.share, 4))
            for source, votes in sorted(tally.gender.items())
        ),
        voice=tuple(_median(name, cells) for name, cells in sorted(tally.measures.items())),
    )


def _median(measure: str, cells: Mapping[int, int]) -> VoiceMedian:
    clips = np.array(list(cells.values()))
    value = weighted_median(np.array(list(cells)) / _CELLS[measure], clips)
    if measure == "f0_median_hz":
        value = 2 ** (value / 12)
    return VoiceMedian(measure=measure, clips=int(clips.sum()), value=round(value, 3))


def decide_gender(votes: Mapping[str, Votes], config: TraitsConfig) -> tuple[str | None, float | None, str]:
    """(gender, its probability, "") or (None, None, why not), from votes by classifier."""
    female = {source: one.share for source, one in sorted(votes.items()) if one.clips}
    if not female:
        return None, None, "no_votes"
    share = {source: config.trees_share if source == "trees" else config.gender_share for source in female}
    decided = [one for source, one in female.items() if max(one, 1 - one) >= share[source]]
    if not decided:
        return None, None, "mixed"
    if len({one >= 0.5 for one in decided}) > 1:
        return None, None, "disagree"
    mean = sum(decided) / len(decided)
    return ("female" if mean >= 0.5 else "male"), round(max(mean, 1 - mean), 4), ""
