"""Stretches of a clip between pauses, and where the language changes between them."""

import numpy as np

from annotation.speech.language_changes import STRETCH_SECONDS, changes, parts, stretches
from annotation.speech.transcription import RATE
from samples import bad_input

ENGLISH, SPANISH, UNSURE = (0.97, 0.02, 0.01), (0.03, 0.95, 0.02), (0.3, 0.6, 0.1)


def spoken(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows)


def test_a_clip_is_divided_at_its_pauses_and_stays_whole() -> None:
    sentences = [
        bad_input.turn(name, 1).astype("float32")[int(0.3 * RATE) : -int(0.3 * RATE)] for name in ("en-1", "it-1")
    ]
    pause = np.zeros(RATE // 4, dtype=np.float32)
    clip = np.concatenate([sentences[0], pause, sentences[1]])
    found = stretches(clip)
    assert found[0][0] == 0 and found[-1][1] == len(clip)
    assert all(a[1] == b[0] for a, b in zip(found, found[1:], strict=False))
    assert all(end - start >= STRETCH_SECONDS * RATE for start, end in found)
    assert any(0 <= start - len(sentences[0]) <= len(pause) for start, _ in found)
    assert stretches(sentences[0][: int(1.4 * RATE)]) == [(0, int(1.4 * RATE))]


def test_a_change_has_to_explain_the_stretches_better_than_one_language_does() -> None:
    assert changes(spoken(ENGLISH, ENGLISH, SPANISH)) == [2]
    assert changes(spoken(ENGLISH, SPANISH, SPANISH, ENGLISH)) == [1, 3]
    assert changes(spoken(ENGLISH, UNSURE, ENGLISH)) == []
    assert changes(spoken(UNSURE, ENGLISH, ENGLISH)) == []
    assert changes(spoken(SPANISH)) == []


def test_parts_are_what_lies_between_changes() -> None:
    bounds = [(0, 10), (10, 25), (25, 40)]
    assert parts(bounds, [2]) == [(0, 25), (25, 40)]
    assert parts(bounds, [1, 2]) == bounds
    assert parts(bounds, []) == [(0, 40)]
