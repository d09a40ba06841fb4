"""Every clip comes out at its loudness, under its peak; a click holds nothing down."""

import numpy as np
import pyloudnorm
import pytest
import soundfile

from annotation.audio.quality import Dnsmos, QualityConfig, at_loudness, limited_gain, loudness_gain
from samples import bad_input

RATE = 16000
CONFIG = QualityConfig()
CEILING = 10 ** (CONFIG.peak_dbfs / 20) * 1.001


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    audio, _ = soundfile.read(bad_input.RECORDINGS / "en-1.flac", frames=8 * RATE, dtype="float32")
    return np.asarray(audio)


def loudness(audio: np.ndarray) -> float:
    return float(pyloudnorm.Meter(RATE).integrated_loudness(audio.astype(np.float64)))


@pytest.mark.parametrize("clicks", [1, 3, 7])
def test_clicks_do_not_hold_a_quiet_clip_down(speech: np.ndarray, clicks: int) -> None:
    quiet = 0.05 * speech
    clicked = quiet.copy()
    places = np.linspace(RATE, 7 * RATE, clicks).astype(int)
    clicked[places] = 0.99
    _, held = loudness_gain(clicked, RATE, CONFIG)
    assert loudness(at_loudness(clicked, RATE, held, CONFIG)) < -38
    _, gain = limited_gain(clicked, RATE, CONFIG)
    written = at_loudness(clicked, RATE, gain, CONFIG)
    assert loudness(written) == pytest.approx(-23, abs=0.3) and np.abs(written).max() <= CEILING
    away = np.abs(np.arange(len(quiet))[:, None] - places).min(axis=1) > RATE // 50
    assert np.allclose(written[away], (quiet * 10 ** (gain / 20))[away], atol=1e-4)


def test_a_clip_without_such_peaks_is_written_as_before(speech: np.ndarray) -> None:
    measured, gain = limited_gain(speech, RATE, CONFIG)
    assert (measured, gain) == loudness_gain(speech, RATE, CONFIG) and measured + gain == pytest.approx(-23)
    assert np.array_equal(at_loudness(speech, RATE, gain, CONFIG), speech * np.float32(10 ** (gain / 20)))


def test_a_loud_passage_is_not_flattened(speech: np.ndarray) -> None:
    shouted = 0.02 * speech
    shouted[3 * RATE : 4 * RATE] = 0.9 * speech[3 * RATE : 4 * RATE] / np.abs(speech[3 * RATE : 4 * RATE]).max()
    _, gain = limited_gain(shouted, RATE, CONFIG)
    written = at_loudness(shouted, RATE, gain, CONFIG)
    assert np.abs(written).max() <= CEILING
    frames = np.abs(shouted * 10 ** (gain / 20)).reshape(-1, RATE // 100).max(axis=1)
    assert (frames > CEILING).mean() <= 0.0101


@pytest.mark.parametrize("audio", [np.zeros(RATE, np.float32), np.ones(7, np.float32), np.eye(1, RATE, 50)[0]])
def test_what_has_no_loudness_does_not_break(audio: np.ndarray) -> None:
    _, gain = limited_gain(audio.astype(np.float32), RATE, CONFIG)
    written = at_loudness(audio.astype(np.float32), RATE, gain, CONFIG)
    assert np.isfinite(gain) and np.isfinite(written).all() and np.abs(written).max(initial=0) <= CEILING


def test_a_long_clip_is_measured_at_as_many_places_a_second(speech: np.ndarray) -> None:
    measure = Dnsmos(max_hops=1)
    noise = np.random.default_rng(0).normal(0, 0.05, 30 * RATE).astype(np.float32)
    clean, noisy = np.tile(speech, 4)[: 30 * RATE], np.tile(speech, 4)[: 30 * RATE] + noise
    # Each half has its place.
    background = [measure(audio)[1] for audio in (clean, np.concatenate([clean, noisy]), noisy)]
    assert background[0] - background[2] > 0.5
    assert background[1] == pytest.approx((background[0] + background[2]) / 2, abs=0.2)
