"""Which channels are read: a speaker a channel, one scene in stereo, channels that cancel, the centre of film sound."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.inputs import media
from pipelines.inputs.channels import Channels, without_crosstalk
from samples import bad_input
from tests.pipelines.inputs.made_media import RATE, encode


def turn(number: int) -> np.ndarray:
    return bad_input.turn("en-1", number).astype(np.float32)


def call(overlap: float = 0.5) -> np.ndarray:
    """Four turns of two speakers, one a channel, [T, 2]; each turn begins before the one before it ends."""
    sides = [np.zeros(60 * RATE, np.float32), np.zeros(60 * RATE, np.float32)]
    place = 0
    for number in range(4):
        audio = turn(number)
        sides[number % 2][place : place + len(audio)] += audio
        place += len(audio) - round(overlap * RATE)
    return np.stack(sides, axis=1)[: place + RATE]


def read(path: Path, channels: Channels = "auto") -> list[int | None]:
    return [one.channel for one in media.scan(str(path), channels=channels).read]


def test_a_speaker_a_channel_is_two_tracks(tmp_path: Path) -> None:
    audio = call()
    soundfile.write(tmp_path / "call.flac", audio, RATE)
    assert read(tmp_path / "call.flac") == [0, 1]
    info = media.scan(str(tmp_path / "call.flac"))
    for one in info.read:
        sound = media.read_window(str(tmp_path / "call.flac"), 0, info.num_samples, one.channel)
        assert one.channel is not None and np.abs(sound - audio[:, one.channel]).max() < 1e-4
    assert info.pcm_sha256 != media.scan(str(tmp_path / "call.flac"), channels="mix").pcm_sha256


@pytest.mark.parametrize("crosstalk_db", [-40, -25, -16])
def test_crosstalk_and_noise_do_not_hide_the_speakers(tmp_path: Path, crosstalk_db: float) -> None:
    audio = call()
    leaked = audio + 10 ** (crosstalk_db / 20) * audio[:, ::-1]
    noise = np.random.default_rng(0).normal(0, 0.002, audio.shape).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", leaked + noise, RATE)
    assert read(tmp_path / "x.wav") == [0, 1]


@pytest.mark.parametrize("crosstalk_db", [-30, -20])
def test_what_leaks_into_a_channel_is_turned_down_and_its_own_speech_is_not(
    tmp_path: Path, crosstalk_db: float
) -> None:
    clean = call()
    leaked = clean + 10 ** (crosstalk_db / 20) * clean[:, ::-1]
    soundfile.write(tmp_path / "x.wav", leaked, RATE, subtype="FLOAT")
    levels = [one.level for one in media.scan(str(tmp_path / "x.wav")).read]
    for channel in (0, 1):
        own, other = leaked[:, channel], leaked[:, 1 - channel]
        turned = without_crosstalk(own, [other], (levels[channel], [levels[1 - channel]]), RATE)
        is_spoken = np.abs(clean[:, channel]) > 0.02
        assert np.mean(turned[is_spoken] == own[is_spoken]) > 0.99
        other_speaks = np.convolve(np.abs(clean[:, channel]) > 0.001, np.ones(RATE // 2), mode="same") == 0
        before, after = np.square(own[other_speaks]).mean(), np.square(turned[other_speaks]).mean()
        assert 10 * np.log10(after / before) < -20
    same = np.stack([clean[:, 0]] * 2, axis=1)
    assert np.array_equal(without_crosstalk(same[:, 0], [same[:, 1]], (levels[0], [levels[0]]), RATE), same[:, 0])


def test_one_scene_in_stereo_is_its_mean(tmp_path: Path) -> None:
    voice, rng = np.concatenate([turn(0), turn(1)]), np.random.default_rng(0)
    music, _ = soundfile.read(bad_input.RECORDINGS / "music.flac", frames=len(voice), dtype="float32")
    noise = rng.normal(0, 0.003, (len(voice), 2)).astype(np.float32)
    echo = np.concatenate([np.zeros(400, np.float32), voice[:-400]])
    scenes = {
        "twice": np.stack([voice, voice], axis=1),
        "panned": np.stack([voice, 0.2 * voice], axis=1) + noise,
        "apart": np.stack([voice, 0.6 * echo], axis=1) + noise,
        "music": np.stack([voice + 0.3 * music, voice - 0.3 * music], axis=1),
        "one side": np.stack([voice, np.zeros_like(voice)], axis=1) + noise,
        "empty side": np.stack([voice, np.zeros_like(voice)], axis=1),
        "noise": rng.normal(0, 0.1, (len(voice), 2)),
    }
    for name, audio in scenes.items():
        soundfile.write(tmp_path / f"{name}.wav", audio, RATE)
        assert read(tmp_path / f"{name}.wav") == [None], name


def test_channels_that_cancel_are_read_from_one(tmp_path: Path) -> None:
    voice = turn(0)
    soundfile.write(tmp_path / "x.wav", np.stack([0.9 * voice, -voice], axis=1), RATE)
    assert read(tmp_path / "x.wav") == [1]


@pytest.mark.parametrize(("wanted", "found"), [("mix", [None]), ("split", [0, 1]), (0, [0]), (1, [1])])
def test_what_is_asked_for_is_read(tmp_path: Path, wanted: Channels, found: list[int | None]) -> None:
    voice = turn(0)
    soundfile.write(tmp_path / "x.wav", np.stack([voice, voice], axis=1), RATE)
    assert read(tmp_path / "x.wav", wanted) == found


def test_a_channel_that_is_not_there_is_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", turn(0), RATE)
    info = media.scan(str(tmp_path / "x.wav"), channels=1)
    assert info.read[0].channel is None and [warning.kind for warning in info.warnings] == ["no_such_channel"]


@pytest.mark.parametrize(
    ("container", "codec"), [("wav", "pcm_s16le"), ("ac3", "ac3"), ("ipod", "aac"), ("flac", "flac")]
)
def test_film_sound_is_read_from_its_centre(tmp_path: Path, container: str, codec: str) -> None:
    import soxr

    voice = soxr.resample(turn(0), RATE, 48000)
    music, _ = soundfile.read(bad_input.RECORDINGS / "music.flac", frames=6 * RATE, dtype="float32")
    music = np.resize(soxr.resample(music, RATE, 48000), len(voice))
    around = np.stack([0.5 * music, -0.4 * music, voice, 0.1 * music, 0.2 * music, 0.2 * music], axis=1)
    encode(around, 48000, tmp_path / "x", container, codec, layout="5.1")
    assert read(tmp_path / "x") == [2]
    silent = around * np.array([1, 1, 0, 1, 1, 1], np.float32)
    encode(silent, 48000, tmp_path / "silent", container, codec, layout="5.1")
    assert read(tmp_path / "silent") == [None]


def test_six_channels_of_a_wav_without_a_layout_are_film_sound(tmp_path: Path) -> None:
    audio = np.zeros((len(turn(0)), 6), np.float32)
    audio[:, 2] = turn(0)
    soundfile.write(tmp_path / "x.wav", audio, RATE, format="WAV")
    assert read(tmp_path / "x.wav") == [2]
