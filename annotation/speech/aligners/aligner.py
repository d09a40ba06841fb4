"""What an aligner is: it places words in the sound of a clip. The words and their probabilities stay as they are."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from annotation.speech.aligners.config import AlignmentConfig
from voxmill.core.errors import UserError, first_line
from voxmill.core.local_copies import local_model
from voxmill.data.records import Seconds, Word

BY_SHARES = "none (shares by characters)"
"""What `aligner` says of words that nobody has placed."""


@dataclass(frozen=True, slots=True)
class SpokenClip:
    """A clip, float32 [samples] at 16 kHz, its words in order, and its language.

    The times that the words have are not looked at.
    """

    audio: np.ndarray
    words: tuple[Word, ...]
    language: str


@dataclass(frozen=True, slots=True)
class AlignedWords:
    """The words of a clip at their times; `between` is how many could only be put between their neighbours."""

    words: tuple[Word, ...]
    between: int


class Aligner(Protocol):
    """Places the words of clips.

    name: what the index says of words that it has placed.
    """

    name: str

    def align(self, clips: Sequence[SpokenClip]) -> list[AlignedWords | None]:
        """One result a clip, which depends on that clip alone; None where it can place no word of it."""
        ...


def load_aligner(config: AlignmentConfig, device: str, threads: int) -> Aligner | None:
    """The configured aligner; None where it has no model of its own.

    Raises:
        UserError: its model cannot be loaded, or what it needs is not installed.
    """
    if config.model is None:
        return None
    place = local_model(config.model)
    if config.backend == "ctc":
        from annotation.speech.aligners.ctc import CtcAligner

        return CtcAligner(config.model, place, romanise=config.romanise, device=device, threads=threads)
    from annotation.speech.aligners.qwen3 import Qwen3Aligner

    return Qwen3Aligner(config.model, place, device=device, threads=threads)


def cannot_load(model: str, kind: str, error: BaseException) -> UserError:
    """The error of a model that transformers does not load."""
    reason = first_line(error)
    return UserError(f"label.alignment.model={model}: transformers cannot load it as {kind} ({reason}); name another")


def placed(
    words: Sequence[Word], times: Mapping[int, tuple[Seconds, Seconds]], seconds: Seconds
) -> AlignedWords | None:
    """The words at the times of those that have one, in order and within the clip; the others between their neighbours.

    Args:
        times: start and end by the word's number.
    """
    if not times:
        return None
    result, open_words, floor = list[Word](), list[Word](), 0.0
    for number, word in enumerate(words):
        if number not in times:
            open_words.append(word)
            continue
        start = min(max(times[number][0], floor), seconds)
        result += shares(open_words, floor, start)
        floor, open_words = min(max(times[number][1], start), seconds), []
        result.append(_at(word, start, floor))
    result += shares(open_words, floor, seconds)
    return AlignedWords(tuple(result), len(words) - len(times))


def shares(words: Sequence[Word], start: Seconds, end: Seconds) -> list[Word]:
    """Words that share a stretch of time by their characters."""
    sizes = np.cumsum([0, *(len(word.word) for word in words)])
    bounds = start + (end - start) * sizes / max(int(sizes[-1]), 1)
    return [_at(word, float(bounds[n]), float(bounds[n + 1])) for n, word in enumerate(words)]


def _at(word: Word, start: Seconds, end: Seconds) -> Word:
    return dataclasses.replace(word, start=round(start, 3), end=round(end, 3))
