"""One decoder for every format and source, and one vocabulary of what cannot be used."""

import errno
import io
import os
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from voxmill.core.audio import (
    RATE_16K,
    REASONS,
    AudioProblem,
    Samples,
    batches_by_length,
    decode,
    decode_flac,
    encode_flac,
    encode_wav,
    mono,
    read_mono,
    resample,
    unreadable,
)

TONE_T: Samples = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)


def reason_of(source: str | Path | bytes, **options: float) -> str:
    with pytest.raises(AudioProblem) as caught:
        read_mono(source, **options)  # type: ignore[arg-type]
    assert caught.value.reason in REASONS and caught.value.detail and "\n" not in caught.value.detail
    return caught.value.reason


def m4a(samples_T: Samples, rate: int) -> bytes:
    packed = io.BytesIO()
    with av.open(packed, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples_T[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return packed.getvalue()


def test_a_path_bytes_and_an_open_file_give_the_same(tmp_path: Path) -> None:
    content = encode_wav(TONE_T, 16000)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    expected_TC, rate = soundfile.read(path, dtype="float32", always_2d=True)
    with path.open("rb") as file:
        decoded = [decode(path), decode(str(path)), decode(content), decode(file)]
    assert all(r == rate == 16000 and np.array_equal(samples_TC, expected_TC) for samples_TC, r in decoded)


def test_a_piece_is_the_piece_of_the_whole(tmp_path: Path) -> None:
    content = encode_flac(TONE_T, 16000)
    whole_TC, _ = decode(content)
    piece_TC, _ = decode(content, start=3000, length=500)
    assert np.array_equal(piece_TC, whole_TC[3000:3500])
    assert len(decode(content, start=15900)[0]) == len(whole_TC) - 15900
    assert len(decode(content, start=10**6, length=5)[0]) == 0


def test_ffmpeg_decodes_no_piece_and_nothing_that_libsndfile_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would decode the whole file for every piece, and take the beginning of a damaged file for all of it."""
    noise_T = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    content = encode_flac(noise_T, 16000)
    half = len(content) // 2
    cut, holed = content[:half], content[:half] + bytes(2000) + content[half + 2000 :]
    compressed = m4a(TONE_T, 16000)
    monkeypatch.setattr(av, "open", None)
    assert np.array_equal(decode(cut, start=1000, length=500)[0], decode(content, start=1000, length=500)[0])
    for damaged in (cut, holed):
        assert reason_of(damaged) == "decode_error"
        with pytest.raises(AudioProblem, match="decode_error: is damaged"):
            decode(damaged, start=20_000, length=8000)
    with pytest.raises(AudioProblem, match="not_audio: libsndfile does not read it"):
        decode(compressed, start=3000, length=500)


def test_ffmpeg_decodes_what_libsndfile_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "concat:a.m4a"  # to FFmpeg, such a name would be a protocol
    path.write_bytes(m4a(TONE_T, 16000))
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(path)
    audio = read_mono(path)
    middle_T = audio.samples_T[4000:12000]
    assert audio.rate == 16000 and abs(float(np.abs(middle_T).max()) - 0.3) < 0.03


def test_channels_are_averaged_and_the_rate_is_changed() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([TONE_T, np.zeros_like(TONE_T)], axis=1), 16000, format="WAV", subtype="FLOAT")
    audio = read_mono(buffer.getvalue(), rate=8000)
    assert (
        np.array_equal(audio.samples_T, resample(TONE_T * np.float32(0.5), 16000, 8000))
        and audio.samples_T.dtype == np.float32
    )
    assert (audio.rate, audio.file_rate, audio.file_seconds) == (8000, 16000, 1.0)
    assert mono(TONE_T) is TONE_T and resample(TONE_T, 8000, 8000) is TONE_T


def test_flac_comes_back_within_half_a_step_and_clipped() -> None:
    decoded_T, rate = decode_flac(encode_flac(TONE_T * 4, 24000))
    assert rate == 24000 and np.abs(decoded_T - np.clip(TONE_T * 4, -1, 1)).max() <= 2**-15
    assert len(resample(decoded_T, rate, RATE_16K)) == round(16000 * 16000 / 24000)


def test_what_cannot_be_used_has_a_reason(tmp_path: Path) -> None:
    wav = encode_wav(TONE_T, 16000)
    assert reason_of(tmp_path / "nowhere.wav") == "missing"
    assert reason_of(tmp_path) == "missing"
    assert reason_of(b"") == "empty_file"
    assert reason_of(b"no audio at all" * 100) == "not_audio"
    assert reason_of(encode_wav(TONE_T[:100], 16000)) == "too_short"
    assert reason_of(encode_wav(TONE_T[:0], 16000)) == "too_short"
    assert reason_of(wav, max_seconds=0.5) == "too_long"
    assert reason_of(m4a(TONE_T, 16000), max_seconds=0.5) == "too_long"
    assert reason_of(encode_wav(TONE_T * 0, 16000)) == "silent"
    assert reason_of(wav, silent_peak=0.5) == "silent"
    buffer = io.BytesIO()
    soundfile.write(buffer, np.where(np.arange(16000) == 7, np.nan, TONE_T), 16000, format="WAV", subtype="FLOAT")
    assert reason_of(buffer.getvalue()) == "non_finite"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_others_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.touch(0o000)
    assert reason_of(path) == "no_permission"


def test_a_failing_disk_is_no_problem_of_the_file() -> None:
    assert unreadable(NotADirectoryError(errno.ENOTDIR, "x")).reason == "missing"
    with pytest.raises(OSError, match="Input/output error"):
        unreadable(OSError(errno.EIO, "Input/output error", "a.wav"))


def test_a_problem_survives_the_way_between_processes() -> None:
    problem = pickle.loads(pickle.dumps(AudioProblem("silent", "peaks at 0")))
    assert (problem.reason, problem.detail, str(problem)) == ("silent", "peaks at 0", "silent: peaks at 0")


def test_batches_are_of_like_lengths_and_within_their_budget() -> None:
    lengths = {f"c{n}": int(n) for n in np.random.default_rng(0).integers(1, 1000, 300)}
    made = list(batches_by_length(lengths, 2000))
    assert sorted(name for batch in made for name in batch) == sorted(lengths)
    assert all(len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= 2000 for batch in made)
    assert list(batches_by_length(dict(reversed(lengths.items())), 2000)) == made
    assert list(batches_by_length({"long": 9000}, 2000)) == [["long"]]
