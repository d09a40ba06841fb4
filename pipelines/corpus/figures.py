"""Figures of the steps over the corpus, as `run.json` holds them."""

from collections.abc import Mapping
from typing import TypedDict


class ShardEntry(TypedDict):
    """A tar of kept clips: its path below OUT, bytes, checksum, clips."""

    name: str
    bytes: int
    sha256: str
    clips: int


class SpeakerFigures(TypedDict):
    """Clusters of voices; purities (0..1) over the `known` clips that the manifest names a speaker of."""

    clusters: int
    without_voice: int
    known: int
    cluster_purity: float | None
    speaker_purity: float | None


class ReferenceFigures(TypedDict):
    """How many clips have a reference, why others have none, and broken rules, of which there must be none."""

    with_reference: int
    reasons: dict[str, int]
    rule_violations: int


# A functional form, because two of the keys are reserved words of Python.
VerdictCounts = TypedDict(
    "VerdictCounts", {"language": str, "attribute": str, "pass": int, "fail": int, "abstain": int}
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


class CorpusLabelFigures(TypedDict, total=False):
    """Figures of the labels that need the whole corpus."""

    errors: dict[str, int]
    speakers: SpeakerFigures
    norms: dict[str, tuple[float, float, int]]
    references: ReferenceFigures
    descriptions: DescriptionFigures
    eligibility: EligibilityFigures
