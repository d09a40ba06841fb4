"""Words find their own times again in sound whose letters are known, as tones of their own."""

import dataclasses

import numpy as np

from annotation.speech.letter_times import TimedClip, letter_times
from voxmill.core.audio import RATE_16K
from voxmill.data.records import Word

WORDS = ("alto", "bero", "nidu", "sole", "tabu", "rino", "dalen", "usor", "biten", "lora")
LETTER_SECONDS = 0.07


def spoken(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[Word]]:
    """A clip of words, pauses behind some of them, and when each is said; a letter is two tones in noise."""
    pieces, words, at = [np.zeros(RATE_16K // 5)], list[Word](), RATE_16K // 5
    for number in range(count):
        text = str(rng.choice(WORDS))
        start = at
        for letter in text:
            t = np.arange(int(LETTER_SECONDS * RATE_16K * rng.uniform(0.8, 1.4))) / RATE_16K
            low, high = 200 + 37 * (ord(letter) - 97), 900 + 211 * ((ord(letter) * 7) % 26)
            pieces.append(np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t) + rng.normal(0, 0.1, len(t)))
            at += len(t)
        words.append(Word(text, start / RATE_16K, at / RATE_16K, 0.9))
        if number % 4 == 3:
            pieces.append(np.zeros(RATE_16K // 4))
            at += RATE_16K // 4
    pieces.append(np.zeros(RATE_16K // 5))
    return (0.1 * np.concatenate(pieces)).astype(np.float32), words


def blurred(words: list[Word], rng: np.random.Generator) -> tuple[Word, ...]:
    """The words at times as attention gives them: early, and by some hundredths of a second off."""
    edges = [max(word.start + rng.normal(-0.03, 0.04), 0.0) for word in words]
    ends = [*edges[1:], words[-1].end + 0.05]
    return tuple(
        dataclasses.replace(word, start=start, end=max(min(end, word.end + 0.1), start + 0.05))
        for word, start, end in zip(words, edges, ends, strict=True)
    )


def distances(words: tuple[Word, ...], truth: list[Word]) -> np.ndarray:
    return np.array([abs(a.start - b.start) for a, b in zip(words, truth, strict=True)])


def test_letters_that_a_window_trains_put_its_words_in_place() -> None:
    rng = np.random.default_rng(4)
    made = [spoken(rng, count) for count in (40, 25, 90)]
    clips = [TimedClip(audio, blurred(words, rng)) for audio, words in made]
    found = letter_times(clips, "it")
    assert found is not None and found == letter_times(clips, "it")
    before = np.concatenate([distances(clip.words, words) for clip, (_, words) in zip(clips, made, strict=True)])
    after = np.concatenate([distances(own, words) for own, (_, words) in zip(found, made, strict=True)])
    assert np.median(after) <= 0.015 < 0.03 < np.median(before) and np.percentile(after, 90) <= 0.04
    for own, clip in zip(found, clips, strict=True):
        assert [(word.word, word.probability) for word in own] == [(word.word, word.probability) for word in clip.words]
        assert all(a.end <= b.start for a, b in zip(own, own[1:], strict=False))
        assert all(0 <= word.start < word.end <= len(clip.audio) / RATE_16K for word in own)


def test_too_little_speech_and_texts_without_an_alphabet_keep_their_times() -> None:
    rng = np.random.default_rng(5)
    audio, words = spoken(rng, 20)
    assert letter_times([TimedClip(audio, tuple(words))], "it") is None
    long = np.tile(audio, 8)
    assert letter_times([TimedClip(long, tuple(words))], "zh") is None
    assert letter_times([TimedClip(long, ())], "it") is None
    figures = (Word("7", 0.2, 0.5, 0.9), Word("...", 0.5, 0.5, 0.9), Word("sole", 0.6, 0.9, 0.9))
    (found,) = letter_times([TimedClip(long, figures)], "it") or [()]
    assert [word.word for word in found] == ["7", "...", "sole"] and found[1] == figures[1]
