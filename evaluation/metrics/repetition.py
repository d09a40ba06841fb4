"""How much of what a system says it says again: loops, the commonest failure of autoregressive models.

Error rates count a loop as so many insertions, so a few of them are most of a mean. Here a clip is one clip.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from evaluation.metrics.normalisation import is_strict_by_character, strict

WORDS, CHARACTERS = 3, 6
"""Units of an n-gram: words, or characters where a language is counted in these. Of a shorter text, all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """`repeated`: n-grams of the transcript that the text has less often and the transcript has before.

    `length_ratio`: units of the transcript over those of the text, 1 where everything is said once.
    """

    repeated: int
    length_ratio: float

    @property
    def is_repeating(self) -> bool:
        """Whether anything is said again that the text does not say again."""
        return self.repeated > 0


def repetition(hypothesis: str, reference: str, language: str) -> Repetition | None:
    """Repetitions of a transcript, as the strict mode normalises both; None for a text without units."""
    said, written = strict(hypothesis, language).split(), strict(reference, language).split()
    if not written:
        return None
    size = min(CHARACTERS if is_strict_by_character(language) else WORDS, len(written))
    expected = _ngrams(written, size)
    repeated = sum(max(count - max(expected[ngram], 1), 0) for ngram, count in _ngrams(said, size).items())
    return Repetition(repeated=repeated, length_ratio=len(said) / len(written))


def _ngrams(units: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(units[start:] for start in range(size)), strict=False))
