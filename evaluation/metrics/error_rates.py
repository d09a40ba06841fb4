"""Errors of a hypothesis against its reference, counted and laid side by side (report 4.1: WER and CER).

Two numbers a set that differ: `official` is the mean of the rates of the utterances that were spoken, as in the
published scripts; `strict` is all errors over all reference units, where a missing or failed utterance
counts as wrong from end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.metrics.normalisation import (
    is_official_by_character,
    is_strict_by_character,
    official,
    script_folded,
    strict,
)


@dataclass(frozen=True, slots=True)
class Errors:
    """Counts in units (words or characters); `length` is the reference's."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def total(self) -> int:
        """All errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors a unit, 0 and up; a reference without units has rate 1 if there is a hypothesis."""
        return self.total / self.length if self.length else float(self.total > 0)


@dataclass(frozen=True, slots=True)
class UtteranceErrors:
    """`official` None: the reference is empty after its normalisation, at which the official scripts stop."""

    official: Errors | None
    strict: Errors


def official_errors(hypothesis: str, reference: str, *, by_character: bool) -> Errors | None:
    """What the official `process_one` counts; None where it stops because the reference is empty."""
    return _count(official(reference, by_character=by_character), official(hypothesis, by_character=by_character))


def strict_errors(hypothesis: str, reference: str, language: str) -> Errors:
    """Errors after strict normalisation."""
    units = strict(hypothesis, language)
    return _count(strict(reference, language), units) or Errors(0, 0, len(units.split()), 0)


def score(hypothesis: str, reference: str, language: str, protocol: str) -> UtteranceErrors:
    """Both modes of one utterance."""
    by_character = is_official_by_character(protocol, language)
    # The official scripts simplify the hypothesis alone: a word that both have then differs (docs/evaluation.md).
    official = official_errors(
        script_folded(hypothesis, language), script_folded(reference, language), by_character=by_character
    )
    return UtteranceErrors(official, strict_errors(hypothesis, reference, language))


def all_wrong(reference: str, language: str) -> Errors:
    """Strict errors of an utterance that was not spoken."""
    length = len(strict(reference, language).split())
    return Errors(0, length, 0, length)


def unit_name(protocol: str, language: str, mode: str) -> str:
    """`CER` or `WER`."""
    by_character = is_strict_by_character(language)
    if mode == "official":
        by_character = is_official_by_character(protocol, language)
    return "CER" if by_character else "WER"


def _count(reference: str, hypothesis: str) -> Errors | None:
    import jiwer

    counts = jiwer.process_words(reference, hypothesis)
    length = len(counts.references[0])
    return Errors(counts.substitutions, counts.deletions, counts.insertions, length) if length else None


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of units that are `equal`, `substitute`, `delete` or `insert`."""

    kind: str
    reference: str
    hypothesis: str


def aligned(hypothesis: str, reference: str, language: str) -> list[Piece]:
    """Strictly normalised texts side by side, for a person to see what went wrong."""
    import jiwer

    joint = "" if is_strict_by_character(language) else " "
    alignment = jiwer.process_words(strict(reference, language), strict(hypothesis, language))
    expected, recognised = alignment.references[0], alignment.hypotheses[0]
    return [
        Piece(
            chunk.type,
            joint.join(expected[chunk.ref_start_idx : chunk.ref_end_idx]),
            joint.join(recognised[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in alignment.alignments[0]
    ]


def corpus_rate(errors: Sequence[Errors]) -> float:
    """All errors over all units."""
    length = sum(one.length for one in errors)
    return sum(one.total for one in errors) / length if length else 0.0
