"""What every recogniser beside Whisper does: texts of pieces of at most 30 s, and what it tells of them.

What it does not tell stays None, and no label is made of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedWord:
    """A word with the punctuation beside it, in seconds from the piece's start; probability 0..1."""

    word: str
    start: float
    end: float
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceText:
    """The text of one piece.

    words: None where the recogniser gives no times. mean_log_probability: over tokens, in nat.
    """

    text: str
    words: tuple[TimedWord, ...] | None = None
    mean_log_probability: float | None = None
    no_speech_probability: float | None = None


class PieceRecogniser(Protocol):
    """Texts of pieces; `aligner` says how it places words in time, "" where it does not."""

    @property
    def aligner(self) -> str: ...

    def __call__(self, pieces: Sequence[np.ndarray], languages: Sequence[str]) -> list[PieceText]:
        """Texts of float32 [samples] at 16 kHz, in our codes of their languages.

        Raises:
            UserError: a language that the model does not know. JobError: a server does not answer.
        """
