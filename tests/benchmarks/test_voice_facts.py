"""The recordings that the benchmark changes are what it says, by measures that are not the facts' own."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.support import changed_voices as changed
from benchmarks.voice_facts import Measured, rows_of
from samples.turns import RATE, sample_turns
from tests.annotation.descriptions.test_facts import PLAIN
from voxmill.data.records import Word

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return sample_turns()[0].audio[: 3 * RATE]


def test_every_change_keeps_length_and_loudness(audio: np.ndarray) -> None:
    for made in (
        changed.room(audio, 0.5, 0.0, RNG),
        changed.whispered(audio, RNG),
        changed.creaky(audio, RNG),
        changed.wavering(audio, RNG, unsteady=0.06),
        changed.flattened(audio),
        changed.swelling(audio, RNG),
    ):
        assert made.shape == audio.shape and made.dtype == np.float32 and np.abs(made).max() <= 1
        assert np.sqrt(np.mean(made**2)) <= np.sqrt(np.mean(audio**2)) * 1.01


def test_a_telephone_line_is_narrow(audio: np.ndarray) -> None:
    power = np.square(np.abs(np.fft.rfft(changed.telephone(audio))))
    hertz = np.fft.rfftfreq(2 * (len(power) - 1), 1 / RATE)
    assert power[hertz > 4100].sum() < 1e-6 * power.sum() and power[hertz < 150].sum() < 1e-2 * power.sum()


def test_a_raised_word_is_longer_and_moves_the_words_after_it(audio: np.ndarray) -> None:
    words = [Word("a", 0.2, 0.6, 1.0), Word("b", 0.6, 1.0, 1.0), Word("c", 1.0, 1.4, 1.0)]
    made, times = changed.emphasised(audio, words, 1, gain_db=5.0, stretch=1.5, semitones=3.0)
    assert len(made) - len(audio) == pytest.approx(0.2 * RATE, abs=400)
    assert times[0] == words[0] and times[1].start == 0.6 and times[1].end == pytest.approx(1.2, abs=0.03)
    assert times[2].end - times[2].start == pytest.approx(0.4)


def test_recall_and_false_alarms_are_counted_by_voices_of_either_kind() -> None:
    def clip(voice: str, kind: str, truth: str, high: float) -> Measured:
        return Measured(
            voice=voice, kind=kind, truth=truth, prosody=replace(PLAIN, low_band_db=-9.0, high_band_db=high)
        )

    clips = [
        clip("asterisk-fr", "telephone", "telephone", -90.0),
        clip("asterisk-fr", "telephone", "telephone", -20.0),
        clip("asterisk-fr", "plain", "", -90.0),
        clip("asterisk-en", "telephone", "telephone", -90.0),
    ]
    rows = [row for row in rows_of(clips) if row["word"] == "telephone"]
    assert [(row["voices"], row["right"], row["of"], row["false"], row["of_others"]) for row in rows] == [
        ("fitted", 1, 1, 0, 0),
        ("others", 1, 2, 1, 1),
    ]
