"""Signs that a transcript lacks its end: sound behind the last word, a word that fills seconds, too few letters.

Words are taken as the recogniser placed them: `word_edges` moves the last one over what is missing.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from annotation.speech.text_checks import normalise
from annotation.speech.word_edges import FRAMES, sounding
from voxmill.data.scripts import letters_a_character

# Whisper ends the last word up to 0.5 s early.
EARLY_SECONDS = 0.5
LONG_WORD_SECONDS = 2.0
FEW_LETTERS = 5.0
"""Letters a second of sound; slow reading in languages with an alphabet has 8 and more."""


class PlacedWord(Protocol):
    """A word with its bounds in seconds from the start of its piece."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...


def seconds_after_words(words: Sequence[PlacedWord], audio: np.ndarray) -> float:
    """Seconds of sound behind the last word; all of it where there are no words.

    Args:
        audio: float32 [samples] at 16 kHz.
    """
    last = words[-1].end if words else 0.0
    return float(sounding(audio)[round(last * FRAMES) :].sum() / FRAMES)


def seems_cut_short(text: str, words: Sequence[PlacedWord], audio: np.ndarray) -> bool:
    """Whether a transcript probably lacks words that are spoken in `audio`, float32 [samples] at 16 kHz."""
    if seconds_after_words(words, audio) > EARLY_SECONDS:
        return True
    if any(word.end - word.start > LONG_WORD_SECONDS for word in words):
        return True
    written = normalise(text).replace(" ", "")
    letters = len(written) * letters_a_character(written)
    return letters < FEW_LETTERS * float(sounding(audio).sum() / FRAMES)
