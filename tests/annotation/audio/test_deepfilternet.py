"""DeepFilterNet3 against its authors' program (libDF, commit d375b2d), which was run once over the same speech."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from annotation.audio import deepfilternet
from annotation.audio.deepfilternet import RATE, DeepFilterNet, band_widths
from samples.turns import SAMPLES
from voxmill.core.assets import asset_path
from voxmill.core.audio import resample
from voxmill.core.errors import UserError

# At 16 kHz; without the program's delay.
PUBLISHED = Path(__file__).parent.parent.parent / "data" / "deepfilternet3.flac"


@pytest.fixture(scope="module")
def network() -> DeepFilterNet:
    return DeepFilterNet(asset_path("deepfilternet3") / "DeepFilterNet3_onnx.tar.gz")


def clean_speech() -> np.ndarray:
    audio, rate = soundfile.read(SAMPLES / "recordings" / "en-1.flac", frames=3 * 16000, dtype="float32")
    return resample(audio, rate, RATE)


def noisy_speech() -> np.ndarray:
    """Three seconds of speech in brown noise 6 dB below it."""
    speech = clean_speech()
    noise = np.cumsum(np.random.default_rng(0).standard_normal(len(speech)))
    noise -= np.convolve(noise, np.ones(4801) / 4801, mode="same")
    noisy: np.ndarray = speech + noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2) / 4)
    return noisy.astype(np.float32)


def ratio_db(wanted: np.ndarray, voice: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(wanted**2) / np.sum((voice - wanted) ** 2)))


def test_it_gives_what_the_published_program_gives(network: DeepFilterNet) -> None:
    published, rate = soundfile.read(PUBLISHED, dtype="float32")
    noisy = noisy_speech()
    (voice,) = network([(noisy, RATE)])
    assert voice.shape == noisy.shape and voice.dtype == np.float32
    # What is left are the program's switches for quiet noise, which it has for speed.
    assert ratio_db(published, resample(voice, RATE, rate)) > 25
    assert ratio_db(clean_speech(), voice) > ratio_db(clean_speech(), noisy) + 6


def test_a_long_recording_is_the_same_in_pieces(network: DeepFilterNet, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = noisy_speech()
    whole = network.enhanced(noisy)
    monkeypatch.setattr(deepfilternet, "CHUNK", 70)
    monkeypatch.setattr(deepfilternet, "BEFORE", 150)
    assert ratio_db(whole, network.enhanced(noisy)) > 30


@pytest.mark.parametrize(("samples", "rate"), [(0, 16000), (1, 48000), (479, 48000), (960, 8000), (5001, 44100)])
def test_recordings_of_any_length_and_rate_keep_them(network: DeepFilterNet, samples: int, rate: int) -> None:
    audio = 0.1 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    for sound in (audio, np.zeros_like(audio)):
        (voice,) = network([(sound, rate)])
        assert voice.shape == sound.shape and np.isfinite(voice).all()


def test_bands_cover_every_bin() -> None:
    # libDF's own for 48 kHz, 960 samples, 32 bands of at least two bins.
    assert band_widths() == [*[2] * 13, 5, 5, 7, 7, 8, 10, 12, 13, 15, 18, 20, 24, 28, 31, 37, 42, 50, 56, 67]


def test_another_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"no archive")
    for path in (tmp_path / "model.tar.gz", tmp_path / "nothing.tar.gz"):
        with pytest.raises(UserError, match="not the networks of DeepFilterNet3"):
            DeepFilterNet(path)
