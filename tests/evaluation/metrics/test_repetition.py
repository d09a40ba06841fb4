"""What counts as said again, and what does not."""

import pytest

from evaluation.metrics.repetition import Repetition, repetition
from evaluation.results.comparison import scores_of
from tests.evaluation.utterances import transcribed

SENTENCE = "Please check the number and dial again."


@pytest.mark.parametrize(
    ("said", "written", "language", "repeated", "length_ratio"),
    [
        (SENTENCE, SENTENCE, "en", 0, 1.0),
        # Seven words four times are 26 trigrams, of which seven distinct: five of the sentence, two across its ends.
        (" ".join([SENTENCE] * 4), SENTENCE, "en", 19, 4.0),
        ("Please check the number and dial again and dial again and dial again.", SENTENCE, "en", 4, 13 / 7),
        # What the text itself repeats is no repetition, however it is written.
        ("no no no no I said no", "No, no, no, NO! I said no.", "en", 0, 1.0),
        ("no no no no no no I said no", "No, no, no, no! I said no.", "en", 2, 9 / 7),
        # Short texts are one n-gram.
        ("Hello there. Hello there.", "Hello there!", "en", 1, 2.0),
        ("No. No. No.", "No.", "en", 2, 3.0),
        # Errors that say nothing again, words left out, nothing at all.
        ("Please check a number and dye a gain", SENTENCE, "en", 0, 8 / 7),
        ("Please check", SENTENCE, "en", 0, 2 / 7),
        ("", SENTENCE, "en", 0, 0.0),
        # Characters where a language is counted in these: eight of the text, twice, and its other script.
        (
            "\u4eca\u5929\u5929\u6c23\u975e\u5e38\u597d\u554a\u4eca\u5929\u5929\u6c23\u975e\u5e38\u597d\u554a",
            "\u4eca\u5929\u5929\u6c14\u975e\u5e38\u597d\u554a\u3002",
            "zh",
            3,
            2.0,
        ),
        ("\u54c8\u54c8\u54c8\u54c8\u54c8\u54c8\u54c8", "\u54c8\u54c8\u54c8\u54c8\u54c8\u54c8\u54c8", "zh", 0, 1.0),
    ],
)
def test_what_is_said_again(said: str, written: str, language: str, repeated: int, length_ratio: float) -> None:
    found = repetition(said, written, language)
    assert found == Repetition(repeated=repeated, length_ratio=length_ratio)
    assert found.is_repeating == (repeated > 0)


def test_a_text_without_words_has_none() -> None:
    assert repetition("said", "...", "en") is None


def test_a_clip_that_loops_is_one_clip() -> None:
    rows = [transcribed(f"u{index}", wrong=0, repeated=40 if index == 0 else 0) for index in range(20)]
    scores = {score.metric: score.estimate for score in scores_of("b", "s", rows)}
    assert scores["repetition"].value == pytest.approx(0.05) and scores["repetition"].n == 20
    assert scores["length_ratio"].value == pytest.approx(1.0)
