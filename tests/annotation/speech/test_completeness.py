"""Transcripts that lack their end are noticed by what sounds behind them."""

import numpy as np
import pytest

from annotation.speech.completeness import seconds_after_words, seems_cut_short
from annotation.speech.recognisers.pieces import TimedWord
from samples import bad_input

TEXT = "The conference is now unmuted."


@pytest.fixture(scope="module")
def sentence() -> np.ndarray:
    """2.0 s of speech with 0.4 s around it."""
    return bad_input.turn("en-1", 9).astype(np.float32)


def words(*ends: float) -> list[TimedWord]:
    return [TimedWord(word="a", start=max(end - 0.4, 0.0), end=end, probability=1.0) for end in ends]


def test_a_whole_transcript_is_not_cut_short(sentence: np.ndarray) -> None:
    assert not seems_cut_short(TEXT, words(0.6, 1.2, 1.8, 2.2), sentence)


def test_sound_after_the_last_word_a_long_word_and_few_letters_are_signs(sentence: np.ndarray) -> None:
    assert seconds_after_words(words(0.6, 1.2), sentence) > 0.8
    assert seems_cut_short(TEXT, words(0.6, 1.2), sentence)
    long = [TimedWord(word="a", start=0.1, end=2.3, probability=1.0)]
    assert seems_cut_short(TEXT, long, sentence)
    assert seems_cut_short("The con", words(2.2), sentence)
    assert seems_cut_short("", [], sentence)


def test_silence_has_nothing_to_lack() -> None:
    assert not seems_cut_short("", [], np.zeros(16000, dtype=np.float32))
