"""Recordings to patches: the oracle's, every format a user has, and everything that is no speech."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from model.checkpoint import load_vae
from model.codec.audio_vae import AudioVAE
from model.generation.prompt_audio import Side, encode_prompt, load_prompt, read_audio, trim_silence
from tests.support.oracle import error, read_oracle
from voxmill.core.audio import MIN_SECONDS
from voxmill.core.errors import UserError

RATE = 16000
SIDES: tuple[Side, Side] = ("left", "right")


@pytest.fixture(scope="module")
def vae() -> AudioVAE:
    return load_vae(read_oracle().checkpoint, read_oracle().config)


def tone(seconds: float, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, audio: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, audio, rate, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("name", "wav", "pad", "trim"),
    [
        ("right", "ref_24k.wav", "right", False),
        ("left", "prompt_16k.wav", "left", False),
        ("left_vad", "prompt_16k.wav", "left", True),
    ],
)
def test_oracle(vae: AudioVAE, name: str, wav: str, pad: Side, trim: bool) -> None:
    oracle = read_oracle()
    patches_TPD = load_prompt(oracle.wav(wav), vae, patch_size=oracle.config.patch_size, pad=pad, trim=trim)
    assert error(patches_TPD, oracle[f"enc_wav.{name}"]) <= 1e-5


def test_oracle_target_is_what_training_reads(vae: AudioVAE) -> None:
    oracle = read_oracle()
    patches_TPD = load_prompt(oracle.wav("target_16k.wav"), vae, patch_size=oracle.config.patch_size, pad="right")
    wav, rate = soundfile.read(oracle.wav("target_16k.wav"), dtype="float32")
    latents = vae.encode(torch.from_numpy(np.pad(wav, (0, -len(wav) % (4 * vae.hop))))[None])
    assert rate == RATE and error(patches_TPD.flatten(0, 1).T, latents) <= 1e-5


def test_padding_stands_where_it_is_asked(vae: AudioVAE) -> None:
    audio_T = torch.from_numpy(tone(0.3))
    left, right = (encode_prompt(audio_T, vae, patch_size=4, pad=side) for side in SIDES)
    missing = -len(audio_T) % (4 * vae.hop)
    expected = encode_prompt(torch.cat([torch.zeros(missing), audio_T]), vae, patch_size=4, pad="right")
    assert left.shape == right.shape == (2, 4, vae.config.latent_dim)
    assert torch.equal(left, expected) and error(left, right) > 1e-3
    whole = torch.from_numpy(tone(0.32))  # exactly two patches: nothing to pad
    assert torch.equal(*(encode_prompt(whole, vae, patch_size=4, pad=side) for side in SIDES))


def test_trim_keeps_a_fifth_of_a_second() -> None:
    silence = np.zeros(RATE, dtype=np.float32)
    samples_T = trim_silence(torch.from_numpy(np.concatenate([silence, tone(1.0), silence])), rate=RATE)
    assert 1.4 <= len(samples_T) / RATE <= 1.4 + 4 * 2048 / RATE  # frames overlap the edges
    speech = torch.from_numpy(tone(0.1, level=0.01))
    assert len(trim_silence(speech, rate=RATE)) == len(speech)  # shorter than one frame


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (48000, 1)])
def test_rates_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    audio = np.stack([tone(0.5, rate, level=0.2 * (index + 1)) for index in range(channels)], axis=1)
    samples_T = read_audio(write(tmp_path / "a.wav", audio, rate), rate=RATE)
    expected = torch.from_numpy(tone(0.5, level=0.1 * (channels + 1)))
    assert samples_T.shape == expected.shape and samples_T.dtype == torch.float32
    assert (samples_T - expected)[800:-800].abs().max() < 0.01


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_24"), ("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III")]
)
def test_formats(tmp_path: Path, suffix: str, subtype: str) -> None:
    samples_T = read_audio(write(tmp_path / f"a.{suffix}", tone(0.5), subtype=subtype), rate=RATE)
    assert (samples_T - torch.from_numpy(tone(0.5)))[500:-500].abs().max() < 0.02 and len(samples_T) == RATE / 2


def test_what_only_ffmpeg_reads(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono", bit_rate=128000)
        frame = av.AudioFrame.from_ndarray(tone(0.5, 48000)[None], format="fltp", layout="mono")
        frame.sample_rate = 48000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    samples_T = read_audio(path, rate=RATE)
    assert abs(len(samples_T) - RATE / 2) < 0.1 * RATE and 0.25 < samples_T[2000:6000].max() < 0.35


def test_bad_recordings(tmp_path: Path, vae: AudioVAE) -> None:
    def refused(path: Path, reason: str) -> None:
        with pytest.raises(UserError, match=reason) as raised:
            load_prompt(path, vae, patch_size=4, pad="right")
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)

    refused(tmp_path / "none.wav", "no such file")
    refused(tmp_path, "Is a directory")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "0 bytes")
    for name, content in (("text.wav", b"no audio at all" * 50), ("cut.wav", b"RIFF")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "cannot be read as audio")
    refused(write(tmp_path / "short.wav", tone(0.05)), "0.05 s of audio is too short")
    refused(write(tmp_path / "nothing.wav", tone(0)), "0 s of audio is too short")
    refused(write(tmp_path / "silent.wav", tone(1.0, level=0.0)), "is silent .*; give a recording of speech")
    refused(write(tmp_path / "dither.wav", tone(1.0, level=5e-5)), "is silent .*; give a recording of speech")
    refused(write(tmp_path / "nan.wav", np.full(RATE, np.nan, dtype=np.float32)), "NaN or infinite")
    assert len(load_prompt(write(tmp_path / "a.wav", tone(MIN_SECONDS)), vae, patch_size=4, pad="right")) == 1


def test_film_without_sound(tmp_path: Path, vae: AudioVAE) -> None:
    import av

    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(UserError, match="has no audio in it"):
        load_prompt(path, vae, patch_size=4, pad="right")
