"""The report's part on controllability: what was labelled, and a page to listen and read side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.report.card import Outcome, floats, number, strings, visible
from pipelines.report.previews import listenable, spread

# Two players a card of about 50 kB each; thirty cards keep the page near 3 MB.
BY_EXPRESSIVENESS = 12
MAX_CARDS = 30
FILTERS = ("language", "gender", "mode", "verdicts")
REASONS = {
    "alone_in_session": "the only clip of its session",
    "no_embedding": "its voice could not be embedded",
    "none_fit_length_or_quality": "no other clip of a fitting length and quality",
    "only_preceding_or_overlapping": "others only precede it directly or overlap it",
    "no_similar_voice": "no other clip is similar enough",
    "same_text": "the similar ones say the same",
}


def controllability(outcome: Outcome) -> dict[str, Any] | None:
    """Figures of run.json as the template shows them; None for a dataset without these labels."""
    found: dict[str, Any] | None = outcome.run.get("control")
    if not found:
        return None
    references, described = found.get("references") or {}, found.get("descriptions") or {}
    teaches = found.get("teaches") or {}
    reasons = references.get("reasons") or {}
    return {
        "speakers": found.get("speakers"),
        "references": references,
        "reasons": [(REASONS.get(reason, visible(reason)), count) for reason, count in reasons.items()],
        "writer": visible(described.get("writer") or ""),
        "described": sum(bool(descriptions) for descriptions in _column(outcome.clips, "descriptions")),
        "texts": sum(len(descriptions or []) for descriptions in _column(outcome.clips, "descriptions")),
        "seconds": described.get("seconds"),
        "dropped": [(visible(reason), count) for reason, count in (described.get("dropped") or {}).items()],
        "counts": [(visible(name), count) for name, count in (described.get("counts") or {}).items()],
        "verdicts": [_pass_rate(row) for row in described.get("verdicts") or []],
        "modes": list((teaches.get("modes") or {}).items()),
        "stages": sorted((teaches.get("stages") or {}).items()),
        "why_not": [
            (stage, [(visible(reason), count) for reason, count in counts.items()])
            for stage, counts in sorted((teaches.get("why_not") or {}).items())
        ],
        "abstained": _abstentions(outcome),
        "errors": list((found.get("errors") or {}).items()),
    }


def _column(table: pa.Table, name: str) -> list[Any]:
    return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows


def _pass_rate(row: Mapping[str, Any]) -> dict[str, Any]:
    judged = row["pass"] + row["fail"]
    rate = 100 * row["pass"] / judged if judged else None
    return {key: visible(row[key]) for key in ("language", "attribute")} | {
        "claims": judged + row["abstain"],
        "abstain": row["abstain"],
        "rate": rate,
        "fail": row["fail"],
    }


def _abstentions(outcome: Outcome) -> list[dict[str, Any]]:
    """How often each classifier spoke, and why it did not."""
    rows = []
    for name in ("gender", "emotion", "age"):
        labels, reasons = strings(outcome.clips, f"{name}.label"), strings(outcome.clips, f"{name}.reason")
        if not any(labels) and not any(reasons):
            continue
        counts: dict[str, int] = {}
        for label, reason in zip(labels, reasons, strict=True):
            key = label or reason or "not run"
            counts[key] = counts.get(key, 0) + 1
        rows.append({"name": name, "counts": [(visible(key), counts[key]) for key in sorted(counts)]})
    return rows


def listeners(outcome: Outcome) -> dict[str, Any] | None:
    """Cards from the flattest to the most expressive clip, at least one a language, and the values to filter them by."""
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
    values = {name: sorted({value for card in cards for value in card[name]}) for name in FILTERS}
    # A class name in the page is a number, never a stranger's text.
    for card in cards:
        card["classes"] = " ".join(f"{name}-{values[name].index(v)}" for name in FILTERS for v in card[name])
    return {"cards": cards, "filters": [(name, list(enumerate(values[name]))) for name in FILTERS]}


def _card(outcome: Outcome, row: int, places: Mapping[str, int]) -> dict[str, Any]:
    record = outcome.clips.slice(row, 1).to_pylist()[0]
    texts = [_text(description) for description in record.get("descriptions") or []]
    reference = next(iter(record.get("references") or []), None)
    other = None
    if reference is not None and reference["clip_id"] in places:
        found = outcome.clips.slice(places[reference["clip_id"]], 1).to_pylist()[0]
        other = {
            "audio": listenable(outcome.out, found),
            "text": visible(found.get("text") or ""),
            "similarity": number(reference["similarity"]),
        }
    percentile = record.get("expressiveness_percentile")
    return {
        "clip": visible(record["clip_id"]),
        "audio": listenable(outcome.out, record),
        "text": visible(record.get("text") or ""),
        "speaker": visible(record.get("speaker") or "unknown"),
        "percentile": None if percentile is None else round(100 * percentile),
        "facts": [_fact(fact) for fact in record.get("facts") or []],
        "texts": texts,
        "reference": other,
        "no_reference": REASONS.get(record.get("no_reference") or "", ""),
        "stages": ", ".join(str(stage) for stage in record.get("stages") or []) or "none",
        "language": [visible(record.get("language") or "?")],
        "gender": [visible(record.get("gender.label") or "unknown")],
        "mode": [visible(mode) for mode in record.get("modes") or []],
        "verdicts": sorted({text["verdict"] for text in texts}),
    }


def _fact(fact: Mapping[str, Any]) -> tuple[str, str, str]:
    value = "" if fact["value"] is None else f"{number(fact['value'])} {fact['unit']}"
    sure = "" if fact["probability"] is None else f"{fact['probability']:.0%}"
    return visible(fact["attribute"]), visible(fact["word"]), visible(value or sure)


def _text(description: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = [verdict["verdict"] for verdict in description["verdicts"]]
    claims = "; ".join(f"{v['attribute']}: {v['claimed']} ({v['verdict']})" for v in description["verdicts"])
    return {
        "kind": f"{description['axis']}, {description['granularity']}, {description['language']}",
        "text": visible(description["text"]),
        "writer": visible(description["generator"]),
        "claims": visible(claims),
        # What is shown was kept, so no claim of it failed.
        "verdict": "all passed" if verdicts and all(v == "pass" for v in verdicts) else "some abstained",
    }
