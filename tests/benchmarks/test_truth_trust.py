"""What kept clips are worth and whether predictions come true, on a few made clips."""

import pytest

from benchmarks.truth_parts.recordings import DatasetClip, TrueTurn
from benchmarks.truth_parts.trust import judged_clips, kept_table, reliability_table

TURNS = {
    "a.flac": [TrueTurn(start=3.0 * i, end=3.0 * i + 2, text="one two three four", language="en") for i in range(10)]
}


def clip(number: int, wrong: int, predicted: float | None, reason: str = "") -> DatasetClip:
    words = ["one", "two", "three", "four"]
    text = " ".join(["x"] * wrong + words[wrong:])
    start = 3.0 * number
    return DatasetClip(start=start, end=start + 2, text=text, language="en", predicted_wer=predicted, reason=reason)


def test_kept_words_and_fifths() -> None:
    clips = [clip(i, 0, 0.05) for i in range(6)] + [clip(6, 1, 0.2), clip(7, 2, 0.5, "high_predicted_wer")]
    clips += [clip(8, 4, 0.9, "high_predicted_wer"), clip(9, 4, 1.0, "high_predicted_wer")]
    judged = judged_clips(TURNS, {"a.flac": clips})
    rows, numbers = kept_table(judged)
    assert numbers["kept_en"] == numbers["kept"] == 7 and numbers["kept_wer"] == pytest.approx(1 / 28)
    assert numbers["kept_wer_p90"] == pytest.approx(0.1) and rows[-1][:3] == ["all", "10", "7"]
    rows, numbers = reliability_table(judged)
    assert [row[1] for row in rows] == ["2"] * 5 and [row[3] for row in rows] == [
        "0.000",
        "0.000",
        "0.000",
        "0.375",
        "1.000",
    ]
    assert numbers["reliability_gap"] == pytest.approx(0.05)


def test_nothing_predicted_is_no_number() -> None:
    judged = judged_clips(TURNS, {"a.flac": [clip(0, 0, None)]})
    assert reliability_table(judged)[1] == {"reliability_gap": None}
