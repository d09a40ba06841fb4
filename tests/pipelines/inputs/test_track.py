"""What is wrong with a file is told, and its sound stands at its time: holes, chains, sizes, scales, tracks."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from pipelines.inputs import media
from samples import bad_input
from tests.pipelines.inputs.made_media import RATE, encode, encode_tracks, remux, similarity, vorbis
from voxmill.core.audio import AudioProblem


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    audio, _ = soundfile.read(bad_input.RECORDINGS / "en-1.flac", frames=8 * RATE, dtype="float32")
    return np.asarray(audio)


def scanned(path: Path) -> tuple[media.MediaInfo, dict[str, str], np.ndarray]:
    """(what a scan finds, its warnings by kind, the sound as it is labelled)."""
    info = media.scan(str(path))
    sound = media.read_window(str(path), 0, info.num_samples, info.read[0].channel, (), info.scale)
    return info, {warning.kind: warning.detail for warning in info.warnings}, sound


# ---- time


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "aac"), ("mp4", "aac"), ("webm", "libopus")])
def test_a_hole_in_the_timestamps_is_silence(tmp_path: Path, speech: np.ndarray, suffix: str, codec: str) -> None:
    audio = soxr.resample(speech, RATE, 48000)
    whole, hole = tmp_path / f"whole.{suffix}", tmp_path / f"hole.{suffix}"
    encode(audio, 48000, whole, "matroska" if suffix == "mkv" else suffix, codec)
    frame = 1024 if codec == "aac" else 960
    first, last = 2 * 48000 // frame, 5 * 48000 // frame
    remux(whole, hole, lambda n: not first <= n < last)
    _, warnings, sound = scanned(hole)
    assert list(warnings) == ["timestamp_hole"]
    assert "a hole of 3.0 s without sound, from 2." in warnings["timestamp_hole"]
    assert abs(len(sound) / 48000 - 8) < 0.1
    assert not np.abs(sound[int(2.2 * 48000) : int(4.8 * 48000)]).any()
    assert similarity(sound[int(5.2 * 48000) :], audio[int(5.2 * 48000) :]) > 0.9


def test_a_pause_of_the_recorder_keeps_its_length(tmp_path: Path, speech: np.ndarray) -> None:
    encode(soxr.resample(speech, RATE, 48000), 48000, tmp_path / "whole.webm", "webm", "libopus")
    remux(tmp_path / "whole.webm", tmp_path / "pause.webm", lambda _: True, lambda n: 20.0 if n >= 200 else 0.0)
    info, warnings, _ = scanned(tmp_path / "pause.webm")
    assert abs(info.num_samples / 48000 - 28) < 0.1 and "20.0 s without sound, from 4.0 s" in warnings["timestamp_hole"]


def test_lost_packets_add_up_to_holes(tmp_path: Path, speech: np.ndarray) -> None:
    encode(soxr.resample(speech, RATE, 48000), 48000, tmp_path / "whole.webm", "webm", "libopus")
    remux(tmp_path / "whole.webm", tmp_path / "lossy.webm", lambda n: n % 10 != 3)
    info, warnings, _ = scanned(tmp_path / "lossy.webm")
    assert abs(info.num_samples / 48000 - 8) <= 0.1 and list(warnings) == ["timestamp_hole"]


def test_a_clock_that_was_set_is_not_followed(tmp_path: Path, speech: np.ndarray) -> None:
    encode(soxr.resample(speech, RATE, 48000), 48000, tmp_path / "whole.ts", "mpegts", "aac")
    remux(tmp_path / "whole.ts", tmp_path / "set.ts", lambda _: True, lambda n: 5000.0 if n > 150 else 0.0)
    info, warnings, _ = scanned(tmp_path / "set.ts")
    assert abs(info.num_samples / 48000 - 8) < 0.1 and list(warnings) == ["timestamp_jump"]


def test_damage_in_the_middle_does_not_move_what_follows(tmp_path: Path, speech: np.ndarray) -> None:
    soundfile.write(tmp_path / "x.flac", speech, RATE)
    content = bytearray((tmp_path / "x.flac").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 10_000] = bytes(10_000)
    (tmp_path / "x.flac").write_bytes(content)
    info, warnings, sound = scanned(tmp_path / "x.flac")
    assert info.num_samples == len(speech) and "timestamp_hole" in warnings
    assert np.array_equal(sound[-2 * RATE :], speech[-2 * RATE :])


# ---- chains


def test_every_link_of_a_chained_ogg_is_read(tmp_path: Path, speech: np.ndarray) -> None:
    half = 4 * RATE
    (tmp_path / "same.ogg").write_bytes(vorbis(speech[:half], RATE) + vorbis(speech[half:], RATE))
    (tmp_path / "rates.ogg").write_bytes(
        vorbis(speech[:half], RATE) + vorbis(speech[half:], 44100) + vorbis(speech[:half], 8000)
    )
    _, warnings, sound = scanned(tmp_path / "same.ogg")
    assert not warnings and abs(len(sound) / RATE - 8) < 0.1
    _, warnings, sound = scanned(tmp_path / "rates.ogg")
    assert warnings == {"rate_change": "the rate changes from 16000 to 44100 Hz at 4.0 s; resampled"}
    assert len(sound) == 12 * RATE
    assert similarity(sound[:half], speech[:half]) > 0.95
    assert similarity(sound[half : 2 * half], speech[half:]) > 0.95
    assert similarity(soxr.resample(sound[2 * half :], RATE, 8000), soxr.resample(speech[:half], RATE, 8000)) > 0.9


def test_a_window_of_a_chain_is_a_piece_of_the_whole(tmp_path: Path, speech: np.ndarray) -> None:
    half = 4 * RATE
    (tmp_path / "x.ogg").write_bytes(vorbis(speech[:half], RATE) + vorbis(speech[half:], 22050))
    _, _, sound = scanned(tmp_path / "x.ogg")
    for start, end in ((half - 1000, half + 1000), (5 * RATE, 6 * RATE)):
        assert np.array_equal(media.read_window(str(tmp_path / "x.ogg"), start, end), sound[start:end])


def test_joined_files_of_another_rate_are_read_to_their_end(tmp_path: Path, speech: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.flac", speech, RATE)
    soundfile.write(tmp_path / "b.flac", soxr.resample(speech, RATE, 48000), 48000)
    (tmp_path / "x.flac").write_bytes((tmp_path / "a.flac").read_bytes() + (tmp_path / "b.flac").read_bytes())
    info, warnings, _ = scanned(tmp_path / "x.flac")
    assert list(warnings) == ["rate_change"] and abs(info.num_samples / RATE - 16) < 0.01


# ---- sizes


def with_size(content: bytes, chunk: bytes, size: int, order: str, extra: bytes = b"") -> bytes:
    changed = bytearray(content + extra)
    place = changed.index(chunk) + 4
    changed[place : place + 4] = struct.pack(order + "I", size)
    return bytes(changed)


@pytest.mark.parametrize(("kind", "chunk", "order"), [("WAV", b"data", "<"), ("AIFF", b"SSND", ">")])
def test_a_size_that_wrapped_hides_no_sound(
    tmp_path: Path, speech: np.ndarray, kind: str, chunk: bytes, order: str
) -> None:
    soundfile.write(tmp_path / "x", speech, RATE, format=kind, subtype="PCM_16")
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(with_size(content, chunk, len(content) // 3, order))
    info, warnings, sound = scanned(tmp_path / "x")
    assert list(warnings) == ["wrapped_size"] and info.num_samples == len(speech)
    assert np.abs(sound - speech).max() < 1e-4


@pytest.mark.parametrize("kind", ["LIST", "id3 ", "padding"])
def test_what_follows_the_sound_is_no_sound(tmp_path: Path, speech: np.ndarray, kind: str) -> None:
    extra = bytes(100_000) if kind == "padding" else kind.encode() + struct.pack("<I", 9001) + b"\xff" * 9002
    soundfile.write(tmp_path / "x.wav", speech, RATE)
    content = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(content + extra)
    info, warnings, _ = scanned(tmp_path / "x.wav")
    assert info.num_samples == len(speech) and not warnings


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_stream_without_a_size_is_read_to_its_end(tmp_path: Path, speech: np.ndarray, size: int) -> None:
    soundfile.write(tmp_path / "x.wav", speech, RATE)
    (tmp_path / "x.wav").write_bytes(with_size((tmp_path / "x.wav").read_bytes(), b"data", size, "<"))
    info, warnings, _ = scanned(tmp_path / "x.wav")
    assert info.num_samples == len(speech) and not warnings


def test_a_copy_that_was_cut_off_is_told(tmp_path: Path, speech: np.ndarray) -> None:
    soundfile.write(tmp_path / "x.wav", speech, RATE)
    content = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(content[: len(content) // 2])
    info, warnings, _ = scanned(tmp_path / "x.wav")
    assert abs(info.num_samples - len(speech) / 2) < 100 and list(warnings) == ["ends_early"]


# ---- scales


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_floats_of_the_scale_of_integers_are_scaled(tmp_path: Path, speech: np.ndarray, bits: int) -> None:
    soundfile.write(tmp_path / "x.wav", speech * 2.0 ** (bits - 1), RATE, subtype="FLOAT")
    info, warnings, sound = scanned(tmp_path / "x.wav")
    assert f"{bits} bits" in warnings["out_of_scale"] and info.scale == 2.0 ** (1 - bits)
    assert np.allclose(sound, speech, atol=1e-6)


def test_a_loud_float_file_stays_as_it_is_and_a_click_is_cut(tmp_path: Path, speech: np.ndarray) -> None:
    loud = speech * (3 / np.abs(speech).max())
    soundfile.write(tmp_path / "loud.wav", loud, RATE, subtype="FLOAT")
    _, warnings, sound = scanned(tmp_path / "loud.wav")
    assert not warnings and np.allclose(sound, loud)
    click = speech.copy()
    click[[100, 9000]] = 20000
    soundfile.write(tmp_path / "click.wav", click, RATE, subtype="FLOAT")
    info, warnings, sound = scanned(tmp_path / "click.wav")
    assert warnings == {"out_of_scale": "2 samples up to 2.0e+04, cut to 4"} and info.scale == 1
    assert sound.max() == 4 and np.allclose(np.delete(sound, [100, 9000]), np.delete(speech, [100, 9000]))


def test_floats_of_no_scale_are_refused(tmp_path: Path, speech: np.ndarray) -> None:
    soundfile.write(tmp_path / "x.wav", speech * 1e30, RATE, subtype="FLOAT")
    with pytest.raises(AudioProblem, match="out_of_scale"):
        media.scan(str(tmp_path / "x.wav"))


# ---- tracks


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_track_is_read_and_the_others_named(tmp_path: Path, speech: np.ndarray, default: int) -> None:
    tracks = [speech[: 3 * RATE], speech[3 * RATE : 7 * RATE]]
    encode_tracks(tracks, tmp_path / "x.mkv", ["fre", "eng"], default)
    info, warnings, sound = scanned(tmp_path / "x.mkv")
    assert not warnings and similarity(sound, tracks[default]) > 0.99
    (other,) = info.other_tracks
    assert (other.index, other.language, other.codec) == (1 - default, ["fre", "eng"][1 - default], "pcm_s16le")
