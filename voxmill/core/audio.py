"""Audio files in and out: one decoder, one resampler, and one type for audio that cannot be used.

libsndfile decodes first, so that latents of a voice equal the released code's; FFmpeg (PyAV) decodes what libsndfile
does not open: m4a, webm, the sound of a film. What libsndfile opens and then fails to decode is damaged, and a piece is
decoded by libsndfile alone: FFmpeg would decode the whole file for it each time. FFmpeg is given bytes, never a name,
which might look like an address.
"""

import errno
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from voxmill.core.storage import storage_failure

RATE_16K = 16_000
"""Hertz at which labellers, scorers and the codec's encoder take audio."""
MIN_SECONDS = 0.1
"""Shorter audio holds no speech."""
SILENT_PEAK = 1e-4
"""Audio whose largest sample is below this (-80 dBFS) is silent: dither and nothing else."""

Float = TypeVar("Float", np.float32, np.float64)
Name = TypeVar("Name", str, tuple[int, int, int])
Samples: TypeAlias = NDArray[np.float32]
Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
Reason: TypeAlias = Literal[
    "missing",  # no such file, or it cannot be opened
    "no_permission",
    "empty_file",
    "not_audio",  # no decoder knows it, or it has no audio stream
    "decode_error",  # damaged: nothing of it can be decoded
    "non_finite",  # NaN or infinity
    "out_of_scale",  # floats larger than any scale of samples
    "changed",  # not what an index or an earlier pass states: another length, rate or content
    "too_short",
    "too_long",
    "silent",
    "sample_rate",  # below or above what is of use
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class AudioProblem(Exception):
    """Audio that cannot be used: `reason` is a code for counting, `detail` one line for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        # Both as arguments, so that the error survives a pickle between processes.
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonoAudio:
    """`samples_T`: float32 at `rate` hertz. `file_rate` and `file_seconds` are those of the file before resampling."""

    samples_T: Samples
    rate: int
    file_rate: int
    file_seconds: float


def decode(
    source: Source, *, start: int = 0, length: int | None = None, max_seconds: float | None = None
) -> tuple[Samples, int]:
    """(float32 samples [T, channels], rate in hertz) of the first audio stream.

    Args:
        source: a path, the bytes of a file, or an open binary file that can seek.
        start, length: first sample and number of samples, to decode a piece of what libsndfile reads; fewer come
            where the audio ends before.
        max_seconds: longer audio is refused before it fills the memory.

    Raises:
        AudioProblem: missing, no_permission, empty_file, not_audio, decode_error or too_long.
    """
    if isinstance(source, bytes):
        return _decode_file(io.BytesIO(source), len(source), start, length, max_seconds)
    if not isinstance(source, str | os.PathLike):
        position = source.tell()
        size = source.seek(0, os.SEEK_END) - position
        source.seek(position)
        return _decode_file(source, size, start, length, max_seconds)
    try:
        with open(source, "rb") as file:
            return _decode_file(file, os.fstat(file.fileno()).st_size, start, length, max_seconds)
    except OSError as error:
        raise unreadable(error) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file's header states: `rate` in hertz, `num_samples` in each channel. A header may lie."""

    rate: int
    num_samples: int


def read_header(path: Path) -> Header:
    """The header of a file that libsndfile reads; nothing is decoded.

    Raises:
        AudioProblem: missing, no_permission, empty_file or not_audio.
    """
    import soundfile

    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioProblem("empty_file", "0 bytes")
            file.seek(0)
            with soundfile.SoundFile(file) as sound:
                return Header(rate=sound.samplerate, num_samples=sound.frames)
    except OSError as error:
        raise unreadable(error) from None
    except soundfile.LibsndfileError as error:
        raise AudioProblem("not_audio", f"libsndfile does not read it ({error.error_string})") from None


_NO_FILE = frozenset(
    [errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.EOPNOTSUPP]
)
"""Of a path that leads to nothing, or to something that is no file."""


def unreadable(error: OSError) -> AudioProblem:
    """The problem of a file that cannot be opened or read.

    Raises:
        UserError, OSError: storage or the disk does not give it, which is not the file's own fault.
    """
    if isinstance(error, FileNotFoundError):
        return AudioProblem("missing", "no such file")
    failure = storage_failure(error)
    if failure is not None:
        raise failure from None
    if isinstance(error, PermissionError):
        return AudioProblem("no_permission", "not readable by this user")
    if error.errno in _NO_FILE:
        return AudioProblem("missing", str(error.strerror or error))
    raise error


def _decode_file(
    file: BinaryIO, size: int, start: int, length: int | None, max_seconds: float | None
) -> tuple[Samples, int]:
    import soundfile

    if size == 0:
        raise AudioProblem("empty_file", "0 bytes")
    begin = file.tell()
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.LibsndfileError as error:
        if start or length is not None:
            raise AudioProblem("not_audio", f"libsndfile does not read it ({error.error_string})") from None
        file.seek(begin)
        return _decode_by_ffmpeg(file, max_seconds)
    with sound:
        _check_length(sound.frames / sound.samplerate, max_seconds)
        try:
            if start:
                sound.seek(min(start, sound.frames))
            samples_TC: Samples = sound.read(-1 if length is None else length, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioProblem("decode_error", f"is damaged ({error.error_string or error.code})") from None
        return samples_TC, sound.samplerate


def _decode_by_ffmpeg(file: BinaryIO, max_seconds: float | None) -> tuple[Samples, int]:
    import av

    blocks: list[Samples] = []
    num_samples, rate = 0, 0
    try:
        with av.open(file, "r", metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioProblem("not_audio", "has no audio in it")
            resampler = av.AudioResampler(format="fltp")
            for frame in container.decode(container.streams.audio[0]):
                rate = frame.sample_rate
                for block in resampler.resample(frame):
                    blocks.append(block.to_ndarray().astype(np.float32, copy=False))
                    num_samples += blocks[-1].shape[1]
                _check_length(num_samples / rate, max_seconds)
    except (av.FFmpegError, ValueError) as error:
        detail = str(getattr(error, "strerror", None) or error).splitlines()[0][:200]
        raise AudioProblem("decode_error" if blocks else "not_audio", f"cannot be read as audio ({detail})") from None
    if not blocks:
        raise AudioProblem("decode_error", "no samples could be decoded")
    return np.concatenate(blocks, axis=1).T, rate


def _check_length(seconds: float, max_seconds: float | None) -> None:
    if max_seconds is not None and seconds > max_seconds:
        raise AudioProblem("too_long", f"{seconds:.0f} s, longer than {max_seconds:.0f} s")


def read_mono(
    source: Source,
    *,
    rate: int | None = None,
    min_seconds: float = MIN_SECONDS,
    max_seconds: float | None = None,
    silent_peak: float = SILENT_PEAK,
) -> MonoAudio:
    """Decodes audio, averages its channels, checks that it can be used and resamples it.

    Args:
        rate: hertz of the result; None: the file's own.

    Raises:
        AudioProblem: as `decode`, and too_short, non_finite or silent.
    """
    samples_TC, file_rate = decode(source, max_seconds=max_seconds)
    samples_T = mono(samples_TC)
    check(samples_T, file_rate, min_seconds=min_seconds, silent_peak=silent_peak)
    target = rate or file_rate
    return MonoAudio(
        samples_T=resample(samples_T, file_rate, target),
        rate=target,
        file_rate=file_rate,
        file_seconds=len(samples_T) / file_rate,
    )


def mono(samples_TC: Samples) -> Samples:
    """The average of the channels of [T, channels] float32 samples, [T]; [T] is returned as it is."""
    return samples_TC if samples_TC.ndim == 1 else samples_TC.mean(axis=1, dtype=np.float32)


def check(samples_T: Samples, rate: int, *, min_seconds: float = MIN_SECONDS, silent_peak: float = SILENT_PEAK) -> None:
    """Refuses mono audio that is of no use.

    Raises:
        AudioProblem: too_short, non_finite or silent.
    """
    seconds = len(samples_T) / rate
    if seconds < min_seconds:
        raise AudioProblem("too_short", f"{seconds:.2g} s of audio is too short, {min_seconds:g} s is the least")
    if not np.isfinite(samples_T).all():
        raise AudioProblem("non_finite", "holds samples that are NaN or infinite")
    peak = float(np.abs(samples_T).max(initial=0.0))
    if peak < silent_peak:
        raise AudioProblem("silent", f"is silent (peak {peak:.1e}, below {silent_peak:.1e})")


def resample(samples_T: NDArray[Float], rate: int, target: int) -> NDArray[Float]:
    """Samples [T] at `target` hertz by soxr's HQ, round(T * target / rate) of them; the same array at the same rate."""
    if rate == target:
        return samples_T
    import soxr

    resampled_T: NDArray[Float] = soxr.resample(samples_T, rate, target, quality="HQ")
    return resampled_T


def encode_flac(samples_T: Samples, rate: int) -> bytes:
    """16-bit FLAC of mono samples, clipped to [-1, 1]."""
    return _encode(samples_T, rate, "FLAC")


def encode_wav(samples_T: Samples, rate: int) -> bytes:
    """16-bit WAV of mono samples, clipped to [-1, 1]."""
    return _encode(samples_T, rate, "WAV")


def _encode(samples_T: Samples, rate: int, container: str) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples_T, -1, 1), rate, format=container, subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(content: bytes) -> tuple[Samples, int]:
    """(mono float32 samples [T], rate in hertz) of a clip's FLAC, as `resample` takes them.

    Raises:
        AudioProblem: empty_file, not_audio or decode_error.
    """
    samples_TC, rate = decode(content)
    return mono(samples_TC), rate


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Half-open index ranges in which a boolean vector is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def batches_by_length(lengths: Mapping[Name, float], budget: float) -> Iterator[list[Name]]:
    """Names from short to long, as many together as fit into `budget` after padding to the longest; at least one."""
    batch: list[Name] = []
    for name in sorted(lengths, key=lambda name: (lengths[name], name)):
        if batch and (len(batch) + 1) * lengths[name] > budget:
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch
