"""Words end and begin where the sound does, on speech with pauses of known length."""

import numpy as np
import soundfile

from annotation.speech.transcription import RATE
from annotation.speech.word_edges import tighten
from samples import bad_input
from voxmill.data.records import Word


def speech(seconds: float) -> np.ndarray:
    """Continuous loud speech cut from a sample recording."""
    audio, _ = soundfile.read(bad_input.RECORDINGS / "en-1.flac", dtype="float32")
    loud = np.flatnonzero(np.abs(audio) > 0.05)[0]
    piece: np.ndarray = audio[loud : loud + int(seconds * RATE)]
    return piece


def test_pauses_around_a_word_are_not_its_own() -> None:
    spoken = speech(0.3)
    audio = np.concatenate([np.zeros(RATE // 2), spoken, np.zeros(RATE // 2)]).astype(np.float32)
    word = tighten([Word("word", 0.1, 1.2, 0.9)], audio)[0]
    assert abs(word.start - 0.5) <= 0.03 and abs(word.end - 0.8) <= 0.05 and word.word == "word"


def test_edges_in_continuous_speech_stay() -> None:
    t = np.arange(RATE) / RATE
    audio = (0.3 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    words = [Word("a", 0.0, 0.4, 1.0), Word("b", 0.4, 1.0, 1.0)]
    assert tighten(words, audio) == words


def test_the_last_word_before_a_pause_ends_with_its_sound() -> None:
    spoken = speech(0.6)
    audio = np.concatenate(
        [spoken, np.zeros(RATE // 2, dtype=np.float32), spoken, np.zeros(RATE // 2, dtype=np.float32)]
    )
    words = tighten([Word("a", 0.0, 0.3, 1.0), Word("b", 0.8, 1.5, 1.0)], audio)
    assert abs(words[0].end - 0.6) <= 0.03 and words[1].start >= 1.0 and abs(words[1].end - 1.7) <= 0.03


def test_silence_and_no_words_are_left_as_they_are() -> None:
    words = [Word("ghost", 0.2, 0.6, 0.1)]
    assert tighten(words, np.zeros(RATE, dtype=np.float32)) == words
    assert tighten([], speech(0.2)) == []
    assert tighten(words, np.zeros(0, dtype=np.float32)) == words


def test_order_is_kept() -> None:
    audio = np.concatenate([speech(0.4), np.zeros(RATE // 2, dtype=np.float32), speech(0.4)])
    words = tighten([Word("a", 0.0, 0.6, 1.0), Word("b", 0.6, 1.3, 1.0)], audio)
    assert words[0].end <= words[1].start and all(w.start <= w.end for w in words)


def test_a_word_holds_no_pause() -> None:
    """What lies beyond it is the end of the word before."""
    audio = np.concatenate([speech(0.6), np.zeros(RATE * 3 // 10, dtype=np.float32), speech(0.5)])
    words = tighten([Word("a", 0.0, 0.5, 1.0), Word("b", 0.5, 1.4, 1.0)], audio)
    assert abs(words[0].end - 0.6) <= 0.03 and abs(words[1].start - 0.9) <= 0.03 and words[1].end >= 1.35
