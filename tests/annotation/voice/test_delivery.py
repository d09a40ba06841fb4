"""Loudness, ending, creak, bands, decay and emphasis on sounds whose values are known by construction."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from annotation.voice import delivery, emphasis
from annotation.voice.prosody import RATE, ProsodyConfig, ProsodyMeter, with_other_words
from tests.annotation.voice.test_prosody import steady, voice
from voxmill.data.records import Prosody, StressedWord, Word

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def meter() -> ProsodyMeter:
    return ProsodyMeter(ProsodyConfig())


def measure(meter: ProsodyMeter, audio: np.ndarray, *words: Word) -> Prosody:
    return meter(audio, words, " ".join(word.word for word in words), "en")


@pytest.mark.parametrize("semitones", [-6.0, 0.0, 6.0])
def test_the_ending_is_the_move_of_the_last_pitch(meter: ProsodyMeter, semitones: float) -> None:
    moves = np.interp(np.arange(2 * RATE), [0, 1.6 * RATE, 2 * RATE], [0, 0, semitones])
    measured = measure(meter, voice(150 * 2 ** (moves / 12)))
    assert measured.f0_end_semitones == pytest.approx(semitones, abs=1.0)


def test_single_pulses_are_creak_and_a_pitch_is_not(meter: ProsodyMeter) -> None:
    slow, modal = measure(meter, voice(steady(35.0), jitter=0.1)), measure(meter, voice(steady(120.0)))
    assert slow.creak_share is not None and slow.creak_share > 0.7
    assert modal.creak_share == 0.0
    assert measure(meter, np.zeros(2 * RATE, np.float32)).creak_share is None


def test_loudness_spreads_as_its_steps_do(meter: ProsodyMeter) -> None:
    gains = 10 ** (np.repeat([6.0, -6.0, 6.0, -6.0], RATE) / 20)
    waves = voice(steady(150.0, 4.0)) * gains.astype(np.float32)
    # Half of the time 6 dB up and half 6 dB down, less the 0.3 s after each step that the loud side reaches into.
    assert measure(meter, waves).loudness_std_db == pytest.approx(6.0, abs=0.5)
    assert measure(meter, voice(steady(150.0))).loudness_std_db == pytest.approx(0.0, abs=0.3)


def test_a_line_leaves_nothing_outside_of_its_band() -> None:
    noise = RNG.standard_normal(3 * RATE).astype(np.float32) * 0.1
    wide = delivery.band_levels(delivery.band_powers(noise))
    line = sosfilt(butter(8, [300, 3400], "bandpass", fs=RATE, output="sos"), noise)
    narrow = delivery.band_levels(delivery.band_powers(line.astype(np.float32)))
    assert wide is not None and narrow is not None
    assert wide == pytest.approx((0.0, 0.0), abs=0.5)
    assert narrow[0] < -15 and narrow[1] < -15


@pytest.mark.parametrize("reverberation", [0.4, 0.6, 1.0])
def test_sounds_die_away_as_fast_as_the_room_lets_them(reverberation: float) -> None:
    time = np.arange(RATE) / RATE
    burst = np.where(time < 0.2, 1.0, 10 ** (-3 * (time - 0.2) / reverberation))
    audio = 0.2 * np.tile(burst, 5) * RNG.standard_normal(5 * RATE)
    rate = delivery.decay_rate(delivery.band_powers(audio.astype(np.float32)))
    # Noise adds a few dB to the steepest tenth of 60 ms.
    assert rate == pytest.approx(60 / reverberation, abs=60)


def test_a_whisper_has_little_below_a_kilohertz_and_no_pitch(meter: ProsodyMeter) -> None:
    noise = sosfilt(butter(2, 1500, "highpass", fs=RATE, output="sos"), RNG.standard_normal(3 * RATE))
    syllables = 0.1 * (1.2 + np.sin(2 * np.pi * 4 * np.arange(3 * RATE) / RATE))
    whisper = measure(meter, (noise * syllables).astype(np.float32))
    assert whisper.tilt_db is not None and whisper.tilt_db < -3 and whisper.voiced_share < 0.1
    assert measure(meter, voice(steady(150.0))).tilt_db > 5  # type: ignore[operator]
    assert measure(meter, np.zeros(3 * RATE, np.float32)).tilt_db is None


def test_noise_and_unsteady_periods_lower_the_cepstral_peak(meter: ProsodyMeter) -> None:
    clear, noisy, rough = (
        measure(meter, voice(steady(150.0), **changes)).cpp_db
        for changes in ({}, {"noise": 0.1}, {"jitter": 0.02, "shimmer": 0.2})
    )
    assert clear is not None and noisy is not None and rough is not None
    assert noisy < clear - 3 and rough < clear - 3


def _frames(loud: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Level and pitch of ten words of 0.2 s, one of them 10 dB louder and one (or the same) 5 semitones higher."""
    level, f0 = np.full(120, -20.0), np.full(120, 120.0)
    level += np.tile([0.5, -0.5], 60)
    if loud >= 0:
        level[10 * loud : 10 * loud + 10] += 10
    if high >= 0:
        f0[10 * high : 10 * high + 10] *= 2 ** (5 / 12)
    return level, f0


def test_a_word_stands_out_by_energy_length_and_pitch_together() -> None:
    words = [Word(f"w{n}", 0.2 * n, 0.2 * n + 0.2, 1.0) for n in range(10)]
    units = [2] * 10
    assert emphasis.candidates(*_frames(-1, -1), words, units) == ()
    assert emphasis.candidates(*_frames(4, -1), words, units) == ()
    assert emphasis.candidates(*_frames(4, 7), words, units) == ()
    found = emphasis.candidates(*_frames(4, 4), words, [2, 2, 2, 2, 1, 2, 2, 2, 2, 2])
    assert [one.word for one in found] == ["w4"] and found[0].score > 1.5
    assert emphasis.candidates(*_frames(1, 1), words[:3], units[:3]) == ()
    # Words beyond the audio, of no length, or without letters are no error.
    odd = [*words, Word("x", 2.39, 2.39, None), Word("…", 9.0, 9.1, None)]
    assert emphasis.emphasis_scores(*_frames(4, 4), odd, [*units, 1, 0]) is not None


def test_other_words_keep_the_place_of_the_emphasis(meter: ProsodyMeter) -> None:
    words = [Word(f"w{n}", 0.2 * n, 0.2 * n + 0.2, 1.0) for n in range(10)]
    measured = measure(meter, voice(steady(120.0)), *words)
    stressed = StressedWord(word="w4", start=0.8, end=1.0, score=2.0)
    measured = replace(measured, emphasis=(stressed,))
    other = [Word("a", 0.0, 0.75, 1.0), Word("new", 0.75, 1.05, 1.0)]
    assert with_other_words(measured, other, "a new", "en", ProsodyConfig()).emphasis == (
        StressedWord(word="new", start=0.8, end=1.0, score=2.0),
    )
    assert with_other_words(measured, [Word("a", 0.0, 0.7, 1.0)], "a", "en", ProsodyConfig()).emphasis == ()


@pytest.mark.parametrize("num", [0, 1, 399, 400, 1600, 16001])
def test_any_length_of_anything_is_measured_without_a_warning(meter: ProsodyMeter, num: int) -> None:
    for audio in (np.zeros(num), 0.1 * RNG.standard_normal(num), np.full(num, 0.5), np.sin(np.arange(num) / 9)):
        measured = measure(meter, audio.astype(np.float32))
        assert all(not isinstance(value, float) or np.isfinite(value) for value in vars_of(measured))


def vars_of(measured: Prosody) -> list[object]:
    return [getattr(measured, name) for name in Prosody.__dataclass_fields__]
