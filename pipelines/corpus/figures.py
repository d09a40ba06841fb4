"""Figures of the steps over the corpus, as `run.json` holds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from voxmill.data.records import Cost, StageName

MAX_OTHERS = 5
"""Names of files that are no recordings, as examples."""


class SpeakerFigures(TypedDict):
    """Clusters of voices; purities (0..1) over the `known` clips that the manifest names a speaker of.

    clusters: each of one session. sampled_clusters: of those, the ones whose voices were compared across sessions;
    sampled_voices: how many different voices these are.
    """

    clusters: int
    sampled_clusters: int
    sampled_voices: int
    without_voice: int
    known: int
    cluster_purity: float | None
    speaker_purity: float | None


class ReferenceFigures(TypedDict):
    """How many clips have a reference, why others have none, and broken rules, of which there must be none."""

    with_reference: int
    across_languages: int
    """Clips with a reference in another language."""
    reasons: dict[str, int]
    rule_violations: int


# A functional form, because two of the keys are reserved words of Python.
VerdictCounts = TypedDict(
    "VerdictCounts",
    {"language": str, "attribute": str, "pass": int, "fail": int, "abstain": int, "unjudged": int},
)


class DescriptionFigures(TypedDict, total=False):
    """What the writer of descriptions did; empty where none ran."""

    writer: str
    usage: Mapping[str, float]
    seconds: float
    counts: dict[str, int]
    dropped: dict[str, int]
    verdicts: list[VerdictCounts]


class EligibilityFigures(TypedDict):
    """Clips by mode and by curriculum stage ("stage1"...), and why clips stay out of a stage."""

    modes: dict[str, int]
    stages: dict[str, int]
    why_not: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketFigures:
    """Counts and sums of one bucket, or of several added up, from which the figures of `run.json` are made.

    verdicts: by `language/attribute/verdict`. why_not: by `stage/reason`. reasons: of clips without a reference. costs:
    seconds, seconds of audio and calls by stage. asked_seconds, spared_seconds: audio that separation was wanted for,
    and that it was not wanted for, in `windows` windows. transcribed: clips; decoded_twice: of them, by why. others:
    files of IN that are no recordings, and the first ones' names. given: labels of the corpus by `attribute/verdict`.
    corrected: clips by what was corrected of them.
    """

    units: int = 0
    others: int = 0
    other_names: tuple[str, ...] = ()
    errors: dict[str, int] = field(default_factory=dict)
    with_reference: int = 0
    across_languages: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    rule_violations: int = 0
    described: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    why_not: dict[str, int] = field(default_factory=dict)
    costs: dict[StageName, Cost] = field(default_factory=dict)
    windows: int = 0
    separated: int = 0
    asked_seconds: float = 0.0
    spared_seconds: float = 0.0
    transcribed: int = 0
    decoded_twice: dict[str, int] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    corrected: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "BucketFigures") -> "BucketFigures":
        return BucketFigures(
            units=self.units + other.units,
            others=self.others + other.others,
            other_names=tuple(sorted({*self.other_names, *other.other_names})[:MAX_OTHERS]),
            errors=_added(self.errors, other.errors),
            with_reference=self.with_reference + other.with_reference,
            across_languages=self.across_languages + other.across_languages,
            reasons=_added(self.reasons, other.reasons),
            rule_violations=self.rule_violations + other.rule_violations,
            described=_added(self.described, other.described),
            dropped=_added(self.dropped, other.dropped),
            verdicts=_added(self.verdicts, other.verdicts),
            modes=_added(self.modes, other.modes),
            stages=_added(self.stages, other.stages),
            why_not=_added(self.why_not, other.why_not),
            costs={
                name: self.costs.get(name, Cost()) + other.costs.get(name, Cost())
                for name in {**self.costs, **other.costs}
            },
            windows=self.windows + other.windows,
            separated=self.separated + other.separated,
            asked_seconds=self.asked_seconds + other.asked_seconds,
            spared_seconds=self.spared_seconds + other.spared_seconds,
            transcribed=self.transcribed + other.transcribed,
            decoded_twice=_added(self.decoded_twice, other.decoded_twice),
            given=_added(self.given, other.given),
            corrected=_added(self.corrected, other.corrected),
        )

    def most_common(self, counts: dict[str, int]) -> dict[str, int]:
        """The same counts, the largest first, equal ones by name."""
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _added(one: dict[str, int], two: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + two.get(name, 0) for name in {**one, **two}}


class FifthFigures(TypedDict):
    """A fifth of clips by their predicted word error rate, with both rates over their words."""

    clips: int
    predicted: float
    true: float


class TrustFigures(TypedDict):
    """What predicts word error rates. Without a fit (None) all that follows it is empty.

    fifths: how true the predictions are on clips that the fit has not seen, `tried_clips` of `tried_voices`.
    """

    recogniser: str
    fit: str | None
    date: str
    recordings: str
    fitted_clips: int
    fitted_voices: list[str]
    tried_clips: int
    tried_voices: list[str]
    fifths: list[FifthFigures]


GivenVerdicts = TypedDict("GivenVerdicts", {"attribute": str, "pass": int, "fail": int, "abstain": int})


class CorpusLabelFigures(TypedDict, total=False):
    """Figures of the labels that need the whole corpus.

    given: clips of which the corpus gives an attribute, by whether its classifier says the same, another, or nothing.
    """

    errors: dict[str, int]
    given: list[GivenVerdicts]
    speakers: SpeakerFigures
    norms: dict[str, tuple[float, float, int]]
    references: ReferenceFigures
    descriptions: DescriptionFigures
    eligibility: EligibilityFigures
