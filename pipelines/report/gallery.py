"""The report's part on controllability: what was labelled, and a page to listen and read side by side."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipelines.corpus.figures import (
    DescriptionFigures,
    EligibilityFigures,
    ReferenceFigures,
    SpeakerFigures,
    VerdictCounts,
)
from pipelines.report.formatting import number, visible
from pipelines.report.previews import listenable, spread
from pipelines.report.tables import Outcome, floats, strings

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
    verdict: Literal["all passed", "some abstained"]


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


def controllability(outcome: Outcome) -> Controllability | None:
    """Figures of run.json as the template shows them; None for a dataset without these labels."""
    figures = outcome.run.get("corpus_labels")
    if not figures:
        return None
    references = figures.get("references")
    described: DescriptionFigures = figures.get("descriptions") or {}
    eligibility: EligibilityFigures = figures.get("eligibility") or {"modes": {}, "stages": {}, "why_not": {}}
    descriptions = _column(outcome.clips, "descriptions")
    return Controllability(
        speakers=figures.get("speakers"),
        references=references,
        reasons=[(REASONS.get(reason, visible(reason)), count) for reason, count in references["reasons"].items()]
        if references
        else [],
        writer=visible(described.get("writer") or ""),
        described=sum(bool(texts) for texts in descriptions),
        texts=sum(len(texts or []) for texts in descriptions),
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


def _column(table: pa.Table, name: str) -> list[Any]:
    return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows


def _pass_rate(row: VerdictCounts) -> PassRate:
    judged = row["pass"] + row["fail"]
    return PassRate(
        language=visible(row["language"]),
        attribute=visible(row["attribute"]),
        claims=judged + row["abstain"],
        abstain=row["abstain"],
        rate=100 * row["pass"] / judged if judged else None,
    )


def _answers(outcome: Outcome) -> list[Answers]:
    """How often each classifier gave which answer, and why it gave none."""
    rows = []
    for name in ("gender", "emotion", "age"):
        labels, reasons = strings(outcome.clips, f"{name}.label"), strings(outcome.clips, f"{name}.reason")
        if not any(labels) and not any(reasons):
            continue
        counts = Counter(label or reason or "not run" for label, reason in zip(labels, reasons, strict=True))
        rows.append(Answers(name=name, counts=[(visible(key), counts[key]) for key in sorted(counts)]))
    return rows


def listeners(outcome: Outcome) -> Listeners | None:
    """Cards from the flattest to the most expressive clip, at least one a language, and the values of the filters."""
    clips = outcome.clips
    if "descriptions" not in clips.column_names or not clips.num_rows:
        return None
    scores = floats(clips, "expressiveness")
    order = np.argsort(np.nan_to_num(scores, nan=-np.inf), kind="stable")
    chosen = spread(order, BY_EXPRESSIVENESS)
    languages = strings(clips, "language")
    for language in dict.fromkeys(languages):
        if len(chosen) < MAX_CARDS and not any(languages[row] == language for row in chosen):
            chosen.append(languages.index(language))
    rank = {int(row): place for place, row in enumerate(order)}
    places = {clip: row for row, clip in enumerate(strings(clips, "clip_id"))}
    cards = [_card(outcome, row, places) for row in sorted(chosen, key=lambda row: rank[row])]
    shown = [card.values() for card in cards]
    values = {name: sorted({value for of in shown for value in of[name]}) for name in shown[0]}
    # A class name in the page is a number, never a stranger's text.
    classes = [" ".join(f"{name}-{values[name].index(v)}" for name in values for v in of[name]) for of in shown]
    return Listeners(
        cards=[replace(card, classes=names) for card, names in zip(cards, classes, strict=True)],
        filters=[(name, list(enumerate(some))) for name, some in values.items()],
    )


def _card(outcome: Outcome, row: int, places: Mapping[str, int]) -> ClipCard:
    record = outcome.clips.slice(row, 1).to_pylist()[0]
    first = next(iter(record.get("references") or []), None)
    reference = None
    if first is not None and first["clip_id"] in places:
        other = outcome.clips.slice(places[first["clip_id"]], 1).to_pylist()[0]
        reference = ReferenceCard(
            audio=listenable(outcome.out, other),
            text=visible(other.get("text") or ""),
            similarity=number(first["similarity"]),
        )
    percentile = record.get("expressiveness_percentile")
    return ClipCard(
        clip=visible(record["clip_id"]),
        audio=listenable(outcome.out, record),
        text=visible(record.get("text") or ""),
        speaker=visible(record.get("speaker") or "unknown"),
        percentile=None if percentile is None else round(100 * percentile),
        facts=[_fact(fact) for fact in record.get("facts") or []],
        texts=[_text(description) for description in record.get("descriptions") or []],
        reference=reference,
        no_reference=REASONS.get(record.get("no_reference") or "", ""),
        stages=", ".join(str(stage) for stage in record.get("stages") or []) or "none",
        language=[visible(record.get("language") or "?")],
        gender=[visible(record.get("gender.label") or "unknown")],
        mode=[visible(mode) for mode in record.get("modes") or []],
    )


def _fact(fact: Mapping[str, Any]) -> tuple[str, str, str]:
    value = "" if fact["value"] is None else f"{number(fact['value'])} {fact['unit']}"
    sure = "" if fact["probability"] is None else f"{fact['probability']:.0%}"
    return visible(fact["attribute"]), visible(fact["word"]), visible(value or sure)


def _text(description: Mapping[str, Any]) -> TextCard:
    verdicts = [verdict["verdict"] for verdict in description["verdicts"]]
    claims = "; ".join(f"{v['attribute']}: {v['claimed']} ({v['verdict']})" for v in description["verdicts"])
    return TextCard(
        kind=f"{description['axis']}, {description['granularity']}, {description['language']}",
        text=visible(description["text"]),
        writer=visible(description["generator"]),
        claims=visible(claims),
        # What is shown was kept, so no claim of it failed.
        verdict="all passed" if verdicts and all(v == "pass" for v in verdicts) else "some abstained",
    )
