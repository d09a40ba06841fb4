"""The clips to correct as the page shows them, and the file to correct them in, without a script."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.corpus.corrections.csv_file import (
    Correction,
    Corrections,
    csv_text,
    in_force,
    spreadsheet_bytes,
    wrong_text,
)
from pipelines.report.correct.doubtful import DoubtfulClip
from pipelines.report.formatting import amount, number, visible
from pipelines.report.previews import EXAMPLE_SECONDS, listenable
from pipelines.report.run_record import CorrectionFigures
from pipelines.report.tables import Outcome

MAX_EARLIER = 1_000
"""Corrections in force that the offered files have, too: some 100 kB of each."""
KINDS = {
    "text": "text corrected",
    "confirmed": "text confirmed",
    "drop": "dropped",
    "speaker": "other speaker",
    "language": "other language",
    "unchanged": "row that changes nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtfulCard:
    """A clip to correct. `classes`: of the filters, numbers alone."""

    clip: str
    audio: str | None
    cut: bool
    text: str
    language: str
    speaker: str
    place: str
    duration: str
    source: str
    doubt: str
    reason: str
    classes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvOffer:
    """A file to download or copy: its name for the filter, its rows and those of them that are in force already."""

    name: str
    rows: int
    earlier: int
    link: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Correcting:
    """What the section shows. `left_out`: corrections in force that are too many for the offered files."""

    cards: list[DoubtfulCard]
    states: list[str]
    languages: list[str]
    offers: list[CsvOffer]
    done: list[tuple[str, int]]
    unknown: int
    unknown_examples: str
    left_out: int


def correcting(outcome: Outcome) -> Correcting | None:
    """The section; None where there is nothing to correct and nothing was corrected.

    Raises:
        UserError: OUT/corrections.csv was changed into what is no file of corrections.
    """
    clips, known = outcome.summary.doubtful, in_force(outcome.out)
    none: CorrectionFigures = {"rows": 0, "clips": {}, "unknown": 0, "unknown_examples": []}
    figures = outcome.run.get("corrections") or none
    if not clips and not known:
        return None
    languages = sorted({visible(clip.language or "?") for clip in clips})
    states = [name for name in ("kept", "rejected") if any(_state(clip) == name for clip in clips)]
    earlier = known if len(known) <= MAX_EARLIER else {}
    return Correcting(
        cards=[_card(outcome, clip, states, languages) for clip in clips],
        states=states,
        languages=languages,
        offers=[_offer(name, clips, earlier) for name in ("any", *states)],
        done=[(KINDS.get(kind, visible(kind)), count) for kind, count in figures["clips"].items()],
        unknown=figures["unknown"],
        unknown_examples=visible(", ".join(figures["unknown_examples"])),
        left_out=len(known) - len(earlier),
    )


def _state(clip: DoubtfulClip) -> str:
    return "rejected" if clip.reason else "kept"


def _card(outcome: Outcome, clip: DoubtfulClip, states: Sequence[str], languages: Sequence[str]) -> DoubtfulCard:
    language = visible(clip.language or "?")
    start = "" if clip.start is None else f" from {number(clip.start)} s"
    return DoubtfulCard(
        clip=visible(clip.clip_id),
        audio=listenable(outcome.out, clip.shard, clip.offset, clip.size),
        cut=clip.duration is not None and clip.duration > EXAMPLE_SECONDS,
        text=visible(clip.text) + ("" if clip.is_whole else " …"),
        language=language,
        speaker=visible(clip.speaker or "unknown"),
        place=visible(clip.path) + start,
        duration=amount(clip.duration),
        source=visible(clip.text_source or "recognised"),
        doubt=number(clip.doubt),
        reason=visible(clip.reason),
        classes=f"state-{states.index(_state(clip))} language-{languages.index(language)}",
    )


def _offer(name: str, clips: Sequence[DoubtfulClip], earlier: Corrections) -> CsvOffer:
    """The corrections in force, since a file stands for all of them, and rows of the clips of one state."""
    rows = dict(earlier)
    for clip in clips:
        if name in ("any", _state(clip)):
            known = earlier.get(clip.clip_id, Correction(clip_id=clip.clip_id))
            rows[clip.clip_id] = replace(known, text=known.text or _prefilled(clip))
    text = csv_text(rows.values())
    packed = base64.b64encode(spreadsheet_bytes(text)).decode("ascii")
    link = f"data:text/csv;charset=utf-8;base64,{packed}"
    return CsvOffer(name=name, rows=len(rows), earlier=len(earlier), link=link, text=text)


def _prefilled(clip: DoubtfulClip) -> str | None:
    """The text of a clip to be changed; none where the file could not hold it, or not all of it."""
    text = " ".join(clip.text.split())
    is_plain = clip.is_whole and visible(text) == text
    return text if is_plain and text and not wrong_text(text) else None
