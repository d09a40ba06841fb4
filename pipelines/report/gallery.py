"""The report's part on controllability: what was labelled, and a page to listen and read side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.corpus.figures import (
    DescriptionFigures,
    EligibilityFigures,
    ReferenceFigures,
    SpeakerFigures,
    VerdictCounts,
)
from pipelines.report.bucket_summary import GRIDS, BucketSummary, ClipPick
from pipelines.report.formatting import number, visible
from pipelines.report.previews import listenable, nearest_values
from pipelines.report.tables import Outcome, rows_of_clips
from voxmill.data.records import ClassColumn, ClipId, CurriculumStage, Description, Fact, Mode, Reference

# Two players a card of about 50 kB each; thirty cards keep the page near 3 MB.
BY_EXPRESSIVENESS = 12
MAX_CARDS = 30
REASONS = {
    "alone_in_session": "the only clip of its session",
    "no_embedding": "its voice could not be embedded",
    "none_fit_length_or_quality": "no other clip of a fitting length and quality",
    "only_preceding_or_overlapping": "others only precede it directly or overlap it",
    "no_similar_voice": "no other clip is similar enough",
    "same_text": "the similar ones have the same text",
}


UNDESCRIBED = {
    "not_expressive": "less expressive than is described",
    "not_scored": "without a score of expressiveness",
    "not_meant": "not of corpus_labels.describe",
    "without_facts": "of which nothing is known",
}
"""Counts of the descriptions' figures in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRate:
    """Claims about one attribute in texts of one language; `rate`: percent passed of those judged, or None."""

    language: str
    attribute: str
    claims: int
    abstain: int
    rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How often each answer of a classifier occurs; an abstention counts under its reason."""

    name: str
    counts: list[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Controllability:
    """Figures of run.json as the template shows them."""

    speakers: SpeakerFigures | None
    references: ReferenceFigures | None
    reasons: list[tuple[str, int]]
    writer: str
    described: int
    undescribed: list[tuple[str, int]]
    """Why kept clips have no description by the writer, and how many."""
    texts: int
    seconds: float | None
    dropped: list[tuple[str, int]]
    verdicts: list[PassRate]
    modes: list[tuple[str, int]]
    stages: list[tuple[str, int]]
    why_not: list[tuple[str, list[tuple[str, int]]]]
    abstained: list[Answers]
    errors: list[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCard:
    """The reference beside a clip."""

    audio: str | None
    text: str
    similarity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCard:
    """One description: its kind, its writer, its claims, and what checking them gave."""

    kind: str
    text: str
    writer: str
    claims: str
    verdict: Literal["all passed", "some open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCard:
    """A clip, its reference and its descriptions. `facts`: (attribute, word, value); `classes`: of the filters."""

    clip: str
    audio: str | None
    text: str
    speaker: str
    percentile: int | None
    facts: list[tuple[str, str, str]]
    texts: list[TextCard]
    reference: ReferenceCard | None
    no_reference: str
    stages: str
    language: list[str]
    gender: list[str]
    mode: list[str]
    classes: str = ""

    def values(self) -> dict[str, list[str]]:
        """The values that the page can be filtered by, by filter."""
        verdicts = sorted({text.verdict for text in self.texts})
        return {"language": self.language, "gender": self.gender, "mode": self.mode, "verdicts": [*verdicts]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """The cards, and for each filter its numbered values."""

    cards: list[ClipCard]
    filters: list[tuple[str, list[tuple[int, str]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _CardClip:
    """What a card shows of a row of clips.parquet."""

    clip_id: ClipId
    text: str | None
    language: str | None
    speaker: str | None
    expressiveness_percentile: float | None
    gender: ClassColumn | None
    facts: tuple[Fact, ...]
    descriptions: tuple[Description, ...]
    references: tuple[Reference, ...] | None
    no_reference: str | None
    modes: tuple[Mode, ...] | None
    stages: tuple[CurriculumStage, ...] | None
    shard: str | None
    offset: int | None
    size: int | None


def controllability(outcome: Outcome) -> Controllability | None:
    """Figures of run.json as the template shows them; None for a dataset without these labels."""
    figures = outcome.run.get("corpus_labels")
    if not figures:
        return None
    references = figures.get("references")
    described: DescriptionFigures = figures.get("descriptions") or {}
    eligibility: EligibilityFigures = figures.get("eligibility") or {"modes": {}, "stages": {}, "why_not": {}}
    return Controllability(
        speakers=figures.get("speakers"),
        references=references,
        reasons=[(REASONS.get(reason, visible(reason)), count) for reason, count in references["reasons"].items()]
        if references
        else [],
        writer=visible(described.get("writer") or ""),
        described=outcome.summary.described,
        undescribed=[
            (words, count)
            for key, words in UNDESCRIBED.items()
            if (count := (described.get("counts") or {}).get(key, 0))
        ],
        texts=outcome.summary.descriptions,
        seconds=described.get("seconds"),
        dropped=[(visible(reason), count) for reason, count in (described.get("dropped") or {}).items()],
        verdicts=[_pass_rate(row) for row in described.get("verdicts") or []],
        modes=list(eligibility["modes"].items()),
        stages=sorted(eligibility["stages"].items()),
        why_not=[
            (stage, [(visible(reason), count) for reason, count in counts.items()])
            for stage, counts in sorted(eligibility["why_not"].items())
        ],
        abstained=_answers(outcome),
        errors=list((figures.get("errors") or {}).items()),
    )


def _pass_rate(row: VerdictCounts) -> PassRate:
    judged = row["pass"] + row["fail"]
    return PassRate(
        language=visible(row["language"]),
        attribute=visible(row["attribute"]),
        claims=judged + row["abstain"] + row.get("unjudged", 0),
        abstain=row["abstain"] + row.get("unjudged", 0),
        rate=100 * row["pass"] / judged if judged else None,
    )


def _answers(outcome: Outcome) -> list[Answers]:
    """How often each classifier gave which answer, and why it gave none."""
    rows = []
    for name in ("gender", "emotion", "age", "dialect", "style"):
        counts = [(visible(row.answer), row.clips) for row in outcome.summary.answers if row.classifier == name]
        if counts:
            rows.append(Answers(name=name, counts=counts))
    return rows


def listeners(outcome: Outcome) -> Listeners | None:
    """Cards from the flattest to the most expressive clip, at least one a language, and the values of the filters."""
    picks = _picks(outcome.summary)
    rows = rows_of_clips(outcome.out, picks, _CardClip)
    first = {pick.clip_id: _first_reference(rows[pick.clip_id]) for pick in picks if pick.clip_id in rows}
    # A reference is of the clip's own session, so it lies in the same part.
    wanted = [replace(pick, clip_id=other.clip_id) for pick in picks if (other := first.get(pick.clip_id))]
    others = rows_of_clips(outcome.out, wanted, _CardClip)
    cards = [_card(outcome, rows[pick.clip_id], others) for pick in picks if pick.clip_id in rows]
    if not cards:
        return None
    shown = [card.values() for card in cards]
    values = {name: sorted({value for of in shown for value in of[name]}) for name in shown[0]}
    # A class name in the page is a number, never a stranger's text.
    classes = [" ".join(f"{name}-{values[name].index(v)}" for name in values for v in of[name]) for of in shown]
    return Listeners(
        cards=[replace(card, classes=names) for card, names in zip(cards, classes, strict=True)],
        filters=[(name, list(enumerate(some))) for name, some in values.items()],
    )


def _picks(summary: BucketSummary) -> list[ClipPick]:
    """Clips of the cards, from the flattest to the most expressive."""
    grid, counts = GRIDS["expressiveness"], summary.measure("expressiveness").kept
    targets = [grid.quantile(counts, i / (BY_EXPRESSIVENESS - 1)) for i in range(BY_EXPRESSIVENESS)]
    chosen = [summary.picks[i] for i in nearest_values([pick.value for pick in summary.picks], targets)]
    for language in sorted(summary.languages, key=lambda row: -row.kept.count):
        if len(chosen) < MAX_CARDS and language.drawn is not None and language.drawn not in chosen:
            chosen.append(language.drawn)
    return sorted(chosen, key=lambda pick: (-math.inf if pick.value is None else pick.value, pick.draw))


def _first_reference(clip: _CardClip) -> Reference | None:
    return next(iter(clip.references or ()), None)


def _card(outcome: Outcome, clip: _CardClip, others: Mapping[str, _CardClip]) -> ClipCard:
    first = _first_reference(clip)
    reference = None
    if first is not None and first.clip_id in others:
        other = others[first.clip_id]
        reference = ReferenceCard(
            audio=_audio(outcome, other), text=visible(other.text or ""), similarity=number(first.similarity)
        )
    percentile = clip.expressiveness_percentile
    gender = None if clip.gender is None else clip.gender.label
    return ClipCard(
        clip=visible(clip.clip_id),
        audio=_audio(outcome, clip),
        text=visible(clip.text or ""),
        speaker=visible(clip.speaker or "unknown"),
        percentile=None if percentile is None else round(100 * percentile),
        facts=[_fact(fact) for fact in clip.facts],
        texts=[_text(description) for description in clip.descriptions],
        reference=reference,
        no_reference=REASONS.get(clip.no_reference or "", ""),
        stages=", ".join(str(stage) for stage in clip.stages or ()) or "none",
        language=[visible(clip.language or "?")],
        gender=[visible(gender or "unknown")],
        mode=[visible(mode) for mode in clip.modes or ()],
    )


def _audio(outcome: Outcome, clip: _CardClip) -> str | None:
    return listenable(outcome.out, clip.shard or "", clip.offset or 0, clip.size or 0)


def _fact(fact: Fact) -> tuple[str, str, str]:
    value = "" if fact.value is None else f"{number(fact.value)} {fact.unit}"
    sure = "" if fact.probability is None else f"{fact.probability:.0%}"
    return visible(fact.attribute), visible(fact.word), visible(value or sure)


def _text(description: Description) -> TextCard:
    verdicts = [verdict.verdict for verdict in description.verdicts]
    claims = "; ".join(f"{v.attribute}: {v.claimed} ({v.verdict})" for v in description.verdicts)
    return TextCard(
        kind=f"{description.axis}, {description.granularity}, {description.language}",
        text=visible(description.text),
        writer=visible(description.generator),
        claims=visible(claims),
        # What is shown was kept, so no claim of it failed.
        verdict="all passed"
        if verdicts and not description.unread and all(v == "pass" for v in verdicts)
        else "some open",
    )
