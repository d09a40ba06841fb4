"""What kept clips are worth in words, and whether predicted word error rates come true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from annotation.speech.known_text import ClipErrors, HeardClip, KnownTurn, clip_errors
from annotation.speech.wer_fitting import fifths
from benchmarks.truth_parts.recordings import DatasetClip, Truth
from voxmill.data.languages import base_language

Numbers = dict[str, float | int | None]


@dataclass(frozen=True, slots=True)
class JudgedClip:
    """A clip of which it is known what was said: its errors, in the language that was spoken."""

    clip: DatasetClip
    language: str
    errors: ClipErrors


def judged_clips(truth: Truth, clips: Mapping[str, Sequence[DatasetClip]]) -> list[JudgedClip]:
    """Clips, kept or rejected, of known words; those with digits are left out, for nobody knows how they were read."""
    judged = []
    for path, turns in truth.items():
        own = clips.get(path, [])
        known = [KnownTurn(start=turn.start, end=turn.end, language=turn.language, text=turn.text) for turn in turns]
        heard = [HeardClip(start=clip.start, end=clip.end, text=clip.text) for clip in own]
        for clip, errors in zip(own, clip_errors(heard, known), strict=True):
            if errors is not None and errors.length and not errors.numbers:
                spoken = max(turns, key=lambda turn: min(turn.end, clip.end) - max(turn.start, clip.start))
                judged.append(JudgedClip(clip, base_language(spoken.language), errors))
    return judged


HEADINGS = ["language", "clips of known words", "kept", "WER of all", "WER of kept", "90th percentile of kept"]
FIFTH_HEADINGS = ["fifth", "clips", "predicted WER", "true WER", "difference"]


def kept_table(judged: Sequence[JudgedClip]) -> tuple[list[list[str]], Numbers]:
    """A row a language and one for all, and the numbers: `kept_wer`, `kept_wer_p90`, the latter by language too."""
    rows: list[list[str]] = []
    numbers: Numbers = {}
    languages = sorted({row.language for row in judged})
    for language in [*languages, None]:
        own = [row for row in judged if language in (None, row.language)]
        kept = [row for row in own if not row.clip.reason]
        wer, p90 = _rate(kept), _percentile(kept)
        rows.append([language or "all", str(len(own)), str(len(kept)), _text(_rate(own)), _text(wer), _text(p90)])
        suffix = "" if language is None else f"_{language}"
        numbers |= {f"kept{suffix}": len(kept), f"kept_wer{suffix}": wer, f"kept_wer_p90{suffix}": p90}
    return rows, numbers


def reliability_table(judged: Sequence[JudgedClip]) -> tuple[list[list[str]], Numbers]:
    """Fifths of all clips by predicted rate, and `reliability_gap`, the largest difference in one of them."""
    known = [(row.clip.predicted_wer, row.errors) for row in judged if row.clip.predicted_wer is not None]
    if not known:
        return [["nothing is predicted", *["-"] * 4]], {"reliability_gap": None}
    curve = fifths(
        np.array([predicted for predicted, _ in known]),
        np.array([errors.errors for _, errors in known], float),
        np.array([errors.length for _, errors in known], float),
    )
    rows = [
        [str(number), str(row.clips), _text(row.predicted), _text(row.true), _text(row.predicted - row.true)]
        for number, row in enumerate(curve, 1)
    ]
    return rows, {"reliability_gap": max(abs(row.predicted - row.true) for row in curve)}


def _rate(judged: Sequence[JudgedClip]) -> float | None:
    length = sum(row.errors.length for row in judged)
    return sum(row.errors.errors for row in judged) / length if length else None


def _percentile(judged: Sequence[JudgedClip]) -> float | None:
    return float(np.percentile([row.errors.rate for row in judged], 90)) if judged else None


def _text(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.3f}"
