"""Decoding as a stream: windows are exact, formats are sniffed, lack of permission has its own reason."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.inputs import media
from pipelines.inputs.media_file import StorageError, _Guarded
from samples import bad_input
from tests.pipelines.inputs.made_media import encode
from voxmill.core.audio import AudioProblem

SAMPLE = bad_input.RECORDINGS / "en-1.flac"


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [
        ("x.wav", "wav", "pcm_s16le"),
        ("x.mp3", "mp3", "libmp3lame"),
        ("x.ogg", "ogg", "vorbis"),
        ("x.opus", "ogg", "libopus"),
        ("x.m4a", "ipod", "aac"),
        ("x.g722", "g722", "g722"),
        ("x.mkv", "matroska", "aac"),
        ("x.mov", "mov", "pcm_s16le"),
        ("x.caf", "caf", "pcm_s16be"),
        ("x.au", "au", "pcm_s16be"),
        ("x.m4b", "ipod", "aac"),
        ("x.ts", "mpegts", "aac"),
        ("x.ac3", "ac3", "ac3"),
        ("x.wv", "wv", "wavpack"),
        ("x.w64", "w64", "pcm_s16le"),
        ("x.amr", "amr", "libopencore_amrnb"),
        ("x.avi", "avi", "libmp3lame"),
        ("x.flv", "flv", "libmp3lame"),
    ],
)
def test_every_format_sounds_as_it_did(tmp_path: Path, name: str, container: str, codec: str) -> None:
    audio, rate = soundfile.read(SAMPLE, frames=5 * 16000)
    rate_of = {"libopus": 48000, "aac": 48000, "ac3": 48000, "libopencore_amrnb": 8000}.get(codec, rate)
    rate_of = 44100 if name == "x.flv" else rate_of
    if rate_of != rate:
        import soxr

        audio = soxr.resample(audio, rate, rate_of)
    if codec == "vorbis":  # FFmpeg's own encoder is experimental
        soundfile.write(tmp_path / name, audio, rate, format="OGG", subtype="VORBIS")
    else:
        encode(audio, rate_of, tmp_path / name, container, codec)
    info = media.scan(str(tmp_path / name))
    assert info.sample_rate == rate_of and info.read[0].ends == (info.num_samples,)
    assert not info.warnings and not info.other_tracks
    decoded = media.read_window(str(tmp_path / name), 0, info.num_samples)
    size = 4 * rate_of
    lag = 5000
    wanted = audio[lag : lag + size]
    score = np.correlate(decoded[: size + 2 * lag].astype(np.float64), wanted, mode="valid")
    best = decoded[int(np.argmax(score)) :][:size].astype(np.float64)
    cosine = float(best @ wanted / np.linalg.norm(best) / np.linalg.norm(wanted))
    assert cosine > (0.75 if codec == "libopencore_amrnb" else 0.95)


def test_half_a_file_says_that_it_ends_early(tmp_path: Path) -> None:
    audio, rate = soundfile.read(SAMPLE, frames=10 * 16000)
    encode(audio, rate, tmp_path / "x.mp3", "mp3", "libmp3lame")
    content = (tmp_path / "x.mp3").read_bytes()
    (tmp_path / "x.mp3").write_bytes(content[: len(content) // 2])
    info = media.scan(str(tmp_path / "x.mp3"))
    assert 4 < info.num_samples / rate < 6
    assert [warning.kind for warning in info.warnings] == ["ends_early"]


def test_windows_of_a_long_file_join_without_a_gap(tmp_path: Path) -> None:
    audio, rate = soundfile.read(SAMPLE, dtype="float32")
    info = media.scan(str(SAMPLE), window_seconds=20, search_seconds=5)
    ends = info.read[0].ends
    bounds = list(zip((0, *ends[:-1]), ends, strict=True))
    assert len(bounds) > 1 and bounds[0][0] == 0 and bounds[-1][1] == info.num_samples == len(audio)
    assert all(a[1] == b[0] for a, b in zip(bounds[:-1], bounds[1:], strict=True))
    assert all(b - a <= 20 * rate for a, b in bounds)
    joined = np.concatenate([media.read_window(str(SAMPLE), a, b) for a, b in bounds])
    assert np.array_equal(joined, audio)
    for _, cut in bounds[:-1]:
        assert np.abs(audio[cut - rate // 20 : cut + rate // 20]).max() < 0.02


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is decoded from its beginning from here on."""
    whole = media.stream
    seen: list[str] = []

    def stream(path: media.Media, channel: int | None = None) -> Iterator[np.ndarray]:
        seen.append(str(path))
        return whole(path, channel)

    monkeypatch.setattr(media, "stream", stream)
    return seen


@pytest.mark.parametrize(
    ("name", "codec", "channels", "jumps"),
    [
        ("x.flac", "PCM_16", 1, True),
        ("x.flac", "PCM_24", 2, True),
        ("x.wav", "PCM_16", 2, True),
        ("x.mp3", "libmp3lame", 1, True),
        ("x.ogg", "libopus", 1, True),
        ("x.mp4", "aac", 1, False),
    ],
)
def test_a_jump_into_a_file_reads_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, channels: int, jumps: bool
) -> None:
    audio, _ = soundfile.read(SAMPLE, dtype="float32")
    audio = np.tile(audio, 3)
    if codec.startswith("PCM"):
        audio = np.stack([np.roll(audio, 7 * channel) for channel in range(channels)], axis=1)
        soundfile.write(tmp_path / name, audio, 48000, subtype=codec)
    else:
        encode(audio, 48000, tmp_path / name, name[2:], codec)
    path = str(tmp_path / name)
    info = media.scan(path, channels="mix")
    whole = np.concatenate(list(media.stream(path)))
    digests = info.read[0].digests
    assert len(digests) == -(-info.num_samples // media.BLOCK) >= 3
    seen = counted(monkeypatch)
    middle, end = media.BLOCK + 100_003, info.num_samples
    for start, stop in ((middle, middle + 200_001), (2 * media.BLOCK, end), (end - 5, end)):
        window = media.read_window(path, start, stop, None, media.digests_of(digests, start, stop))
        assert np.array_equal(window, whole[start:stop])
    assert bool(seen) != jumps


def test_a_damaged_or_resampled_file_is_not_jumped_into(tmp_path: Path) -> None:
    audio, rate = soundfile.read(SAMPLE, frames=5 * 16000)
    soundfile.write(tmp_path / "whole.flac", audio, rate)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    soundfile.write(tmp_path / "fast.flac", np.resize(audio, 96000), 96000)
    counts = {path.name: len(media.scan(str(path)).read[0].digests) for path in tmp_path.iterdir()}
    assert counts == {"cut.flac": 0, "fast.flac": 0, "whole.flac": 1}


def test_a_file_that_changed_after_scanning_is_decoded_anew(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 2 * media.BLOCK)
    soundfile.write(tmp_path / "x.wav", samples, 16000)
    digests = media.scan(str(tmp_path / "x.wav")).read[0].digests
    soundfile.write(tmp_path / "x.wav", samples[::-1], 16000)
    start, end = media.BLOCK + 5, media.BLOCK + 1000
    window = media.read_window(str(tmp_path / "x.wav"), start, end, None, media.digests_of(digests, start, end))
    assert np.allclose(window, samples[::-1][start:end], atol=1e-4)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    # A process of another user, since root may read everything.
    file = Path("/tmp") / f"voxmill-permission-{os.getpid()}.wav"
    soundfile.write(file, np.zeros(16000), 16000)
    file.chmod(0)
    program = (
        "import os, sys\nimport av\nfrom pipelines.inputs import media\n"
        "from voxmill.core.audio import AudioProblem\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try:\n    media.scan(sys.argv[1])\nexcept AudioProblem as error:\n    print(error.reason)\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=60)
    finally:
        file.unlink()
    assert done.stdout.strip() == "no_permission", done.stderr


def test_a_name_that_looks_like_a_url_stays_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("pipe:0.wav", np.ones(1600) * 0.1, 16000)
    assert media.scan("pipe:0.wav").num_samples == 1600


def test_a_file_that_shrank_after_scanning_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.ones(1600) * 0.1, 16000)
    with pytest.raises(AudioProblem, match="changed"):
        media.read_window(str(tmp_path / "x.wav"), 0, 3200)


def test_a_disk_that_fails_is_not_taken_for_the_end_of_a_file() -> None:
    # The kernel answers with EIO where a process has no memory.
    with (
        open("/proc/self/mem", "rb", buffering=0) as failing,
        pytest.raises(StorageError, match="^a.wav: Input/output"),
    ):
        _Guarded(failing, "a.wav").readinto(bytearray(8))
