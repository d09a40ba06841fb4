"""Recordings decoded as a stream with PyAV, whatever the container claims; memory is bounded by what the caller keeps.

The container is sniffed from content, not taken from the name. Everything is mono float32 at the source's rate,
above 48 kHz resampled to 48 kHz. A window of a long file is read by a jump into it; whether a decoder gives the same
samples after a jump is checked: scanning keeps digests of blocks, and reading compares them.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.inputs.channels import FRAME_SECONDS, Channels, candidates, chosen, level, mono
from pipelines.inputs.media_file import MediaFile
from pipelines.inputs.track import OUT_OF_SCALE, TrackNotes, decode
from voxmill.core.audio import AudioProblem
from voxmill.core.hashing import sha256_text
from voxmill.data.records import AudioTrack, RecordingWarning

Media = str | MediaFile
"""A local path or URI, or a part of what lies there."""
MAX_RATE = 48000
QUIET_FRAMES = 10
BLOCK = 480_000
"""Samples that share a digest: 10 s at 48 kHz."""
PREROLL = 48_000
"""A jump lands so many samples early: decoders need some frames before they give what they gave in sequence."""
_MANY = 0.01
"""Share of samples beyond full scale from which they are of another scale, and not clicks."""
_SCALES = (2.0**15, 2.0**23, 2.0**31)
_OVERSHOOT = 1.5
_NO_JUMP = ("damaged_data", "ends_early", "rate_change", "timestamp_jump")
"""What follows these depends on all that came before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadChannel:
    """A channel that is read, from 0, or None for the mean of all, in windows that each begin where one ends.

    ends: of the windows, in samples. digests: one a `BLOCK` samples, the last one of what is left; none where a jump
    into the file is hopeless. level: power of its loud moments, unscaled.
    """

    channel: int | None
    ends: tuple[int, ...]
    level: float = 0.0
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """The result of one full decode. `pcm_sha256` is over the float32 little-endian samples that are read, unscaled.

    scale: factor that brings them to full scale. channels: of the file; `read` has those that are read.
    """

    sample_rate: int
    channels: int
    codec: str
    num_samples: int
    pcm_sha256: str
    scale: float
    read: tuple[ReadChannel, ...]
    other_tracks: tuple[AudioTrack, ...]
    warnings: tuple[RecordingWarning, ...]


def _file(media: Media) -> MediaFile:
    return MediaFile(path=media, name=media) if isinstance(media, str) else media


class _ToRate:
    """Brings a mono stream to the rate that it begins with, or to 48 kHz where that is above; mostly untouched."""

    def __init__(self, rate: int):
        self.rate = min(rate, MAX_RATE)
        self._resampler: Any = None
        self._from = self.rate
        self._change(rate)

    def _change(self, rate: int) -> None:
        import soxr

        self._from = rate
        self._resampler = None if rate == self.rate else soxr.ResampleStream(rate, self.rate, 1, dtype="float32")

    def __call__(self, samples: np.ndarray, rate: int) -> np.ndarray:
        tail = _NOTHING
        if rate != self._from:
            tail = self.finish()
            self._change(rate)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        return np.concatenate([tail, samples]) if len(tail) else samples

    def finish(self) -> np.ndarray:
        """What is left at the end."""
        if self._resampler is None:
            return _NOTHING
        tail: np.ndarray = self._resampler.resample_chunk(_NOTHING, last=True)
        return tail


_NOTHING = np.zeros(0, dtype=np.float32)


def stream(path: Media, channel: int | None = None) -> Iterator[np.ndarray]:
    """Mono float32 blocks of a whole file at its rate (at most 48 kHz), unscaled.

    Raises:
        AudioProblem: nothing can be decoded.
    """
    to_rate: _ToRate | None = None
    for block in decode(_file(path), TrackNotes()):
        to_rate = to_rate or _ToRate(block.rate)
        yield to_rate(mono(block.samples, channel), block.rate)
    if to_rate is not None:
        tail = to_rate.finish()
        if len(tail):
            yield tail


class _Listener:
    """What a scan keeps of one channel."""

    def __init__(self, channel: int | None, rate: int):
        self.channel, self.to_rate = channel, _ToRate(rate)
        self.frame = round(self.to_rate.rate * FRAME_SECONDS)
        self.hash, self.digests = hashlib.sha256(), _Digests()
        self.energy, self._frames = [_NOTHING], _Frames(self.frame)
        self.power, self.count = 0.0, 0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        content = np.ascontiguousarray(samples, dtype="<f4").data.cast("B")
        self.hash.update(content)
        self.digests.update(content)
        with np.errstate(over="ignore"):  # floats of no scale at all, refused at the end
            self.energy.append(self._frames(np.square(samples)))
        self.power += float(np.square(samples, dtype=np.float64).sum())
        self.count += len(samples)
        return samples


def scan(
    path: Media, window_seconds: float = 600.0, search_seconds: float = 60.0, channels: Channels = "auto"
) -> MediaInfo:
    """Decodes a file once: what it is, which of its channels are read, and windows cut at the quietest moments.

    Raises:
        AudioProblem: nothing can be decoded, or what comes out is no sound.
    """
    notes = TrackNotes()
    listeners: list[_Listener] = []
    num_channels, native_rate = 1, 0
    shared = [_NOTHING]

    def listen(pieces: list[np.ndarray]) -> None:
        for listener, piece in zip(listeners, pieces, strict=True):
            listener(piece)
        if len(pieces) == 3:
            shared.append(products(pieces[1] * pieces[2]))

    for block in decode(_file(path), notes):
        if not listeners:
            num_channels, native_rate = len(block.samples), block.rate
            listeners = [_Listener(channel, block.rate) for channel in candidates(channels, block.names)]
            products = _Frames(listeners[0].frame)
        listen([one.to_rate(mono(block.samples, one.channel), block.rate) for one in listeners])
    listen([one.to_rate.finish() for one in listeners])
    count, rate = listeners[0].count, listeners[0].to_rate.rate
    seconds = count / rate
    if isinstance(channels, int) and channels >= num_channels:
        notes.warn("no_such_channel", f"has no channel {channels}; the mean of all was read")
    # Some containers only estimate their length; what is missing must be more than that to be worth a word.
    odd = any(one.kind in ("rate_change", "timestamp_jump") for one in notes.warnings)
    if not odd and seconds < 0.98 * notes.declared_seconds - 0.5:
        lost = f"ends early ({seconds:.1f} s where the header has {notes.declared_seconds:.1f} s)"
        notes.warn("ends_early", lost)
    if notes.nonfinite > count / 2:
        raise AudioProblem("non_finite", f"{notes.nonfinite} of {count} samples are not finite")
    if notes.nonfinite:
        notes.warn("non_finite", f"{notes.nonfinite} samples not finite, set to 0")
    scale = _scale(notes, round(seconds * native_rate))
    energy = {one.channel: np.concatenate(one.energy) for one in listeners}
    power = {one.channel: one.power for one in listeners}
    wanted = chosen(channels, power, energy, np.concatenate(shared))
    # A resampler's state depends on all that came before.
    can_jump = native_rate <= MAX_RATE and not any(one.kind in _NO_JUMP for one in notes.warnings)
    read = [one for one in listeners if one.channel in wanted]
    return MediaInfo(
        sample_rate=rate,
        channels=num_channels,
        codec=notes.codec,
        num_samples=count,
        pcm_sha256=read[0].hash.hexdigest()
        if len(read) == 1
        else sha256_text(":".join(one.hash.hexdigest() for one in read)),
        scale=scale,
        read=tuple(
            ReadChannel(
                channel=one.channel,
                ends=tuple(_cut(energy[one.channel], count, rate, window_seconds, search_seconds)),
                level=level(energy[one.channel]),
                digests=tuple(one.digests.finish()) if can_jump else (),
            )
            for one in read
        ),
        other_tracks=notes.other_tracks,
        warnings=tuple(notes.warnings),
    )


def _scale(notes: TrackNotes, count: int) -> float:
    """The factor of floats that are of the scale of integers.

    Raises:
        AudioProblem: out_of_scale: they are of no known scale.
    """
    if notes.beyond > _MANY * count:
        full = next((scale for scale in _SCALES if notes.peak <= _OVERSHOOT * scale), None)
        if full is None:
            raise AudioProblem("out_of_scale", f"floats up to {notes.peak:.1e}, larger than any scale of samples")
        bits = round(math.log2(full)) + 1
        notes.warn("out_of_scale", f"floats up to {notes.peak:.0f}; read as samples of {bits} bits")
        return 1 / full
    if notes.beyond:
        notes.warn("out_of_scale", f"{notes.beyond} samples up to {notes.peak:.1e}, cut to {OUT_OF_SCALE:g}")
    return 1.0


class _Digests:
    """A short digest of every `BLOCK` float32 samples of a stream that comes in pieces of any length."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self._missing = BLOCK * 4
        self._digests: list[str] = []

    def update(self, content: memoryview) -> None:
        while len(content) >= self._missing:
            self._hash.update(content[: self._missing])
            content = content[self._missing :]
            self._end_block()
        self._hash.update(content)
        self._missing -= len(content)

    def finish(self) -> list[str]:
        if self._missing < BLOCK * 4:
            self._end_block()
        return self._digests

    def _end_block(self) -> None:
        self._digests.append(self._hash.hexdigest())
        self._hash, self._missing = hashlib.blake2b(digest_size=8), BLOCK * 4


class _Frames:
    """Means of consecutive frames of a stream that comes in blocks of any length."""

    def __init__(self, size: int):
        self.size = size
        self._rest = np.zeros(0, dtype=np.float32)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        joined = np.concatenate([self._rest, block])
        whole = len(joined) // self.size * self.size
        self._rest = joined[whole:]
        means: np.ndarray = joined[:whole].reshape(-1, self.size).mean(axis=1)
        return means


def _cut(energy: np.ndarray, count: int, rate: int, window_seconds: float, search_seconds: float) -> list[int]:
    """Ends of windows no longer than `window_seconds`, each in the quietest 0.2 s of its last `search_seconds`."""
    size = round(rate * FRAME_SECONDS)
    window, search = round(window_seconds / FRAME_SECONDS), round(search_seconds / FRAME_SECONDS)
    start, ends = 0, []
    while count / size - start > window:
        low = start + max(window - search, window // 2)
        run = np.convolve(energy[low : start + window], np.ones(QUIET_FRAMES), mode="valid")
        start = low + int(np.argmin(run)) + QUIET_FRAMES // 2
        ends.append(start * size)
    return [*ends, count]


def digests_of(digests: tuple[str, ...], start_sample: int, end_sample: int) -> tuple[str, ...]:
    """Those of a file's digests whose blocks the window touches."""
    return digests[start_sample // BLOCK : -(-end_sample // BLOCK)]


def read_window(
    path: Media,
    start_sample: int,
    end_sample: int,
    channel: int | None = None,
    digests: Sequence[str] = (),
    scale: float = 1.0,
    exact: bool = True,
) -> np.ndarray:
    """Mono float32 samples [start, end) of a file, scaled; clicks are cut to `OUT_OF_SCALE`.

    Args:
        exact: whether the digests are compared; without that they only say that the file can be entered.
        digests: the window's own, see `digests_of`. With them the file is entered near the window; where what comes
            out is not what the scan met there (AAC fills bands with noise of its own), and without them, it is
            decoded from its beginning, the only way to an exact cut.

    Raises:
        AudioProblem: nothing can be decoded, or the file is shorter than it was when it was scanned.
    """
    samples = _window(path, start_sample, end_sample, channel, digests, exact)
    if scale != 1.0:
        samples *= np.float32(scale)
    return np.clip(samples, -OUT_OF_SCALE, OUT_OF_SCALE, out=samples)


def _window(
    path: Media, start_sample: int, end_sample: int, channel: int | None, digests: Sequence[str], exact: bool
) -> np.ndarray:
    first = start_sample // BLOCK * BLOCK
    if digests and first:
        last = first + len(digests) * BLOCK
        audio = _collect(_from(path, first - PREROLL, channel), first, last)
        actual = _Digests()
        actual.update(np.ascontiguousarray(audio, dtype="<f4").data.cast("B"))
        if actual.finish() == list(digests) or (not exact and len(audio) >= end_sample - first):
            return audio[start_sample - first : end_sample - first].copy()
    audio = _collect(_whole(path, channel), start_sample, end_sample)
    if len(audio) != end_sample - start_sample:
        raise AudioProblem("changed", f"{len(audio)} samples where scanning counted {end_sample - start_sample}")
    return audio


def _whole(path: Media, channel: int | None) -> Iterator[tuple[int, np.ndarray]]:
    position = 0
    for block in stream(path, channel):
        yield position, block
        position += len(block)


def _from(path: Media, start_sample: int, channel: int | None) -> Iterator[tuple[int, np.ndarray]]:
    """(position, mono block) from at or before `start_sample` on."""
    notes, position = TrackNotes(), -1
    for block in decode(_file(path), notes, jump_to=start_sample):
        position = notes.first_sample if position < 0 else position
        yield position, mono(block.samples, channel)
        position += block.samples.shape[1]


def _collect(blocks: Iterator[tuple[int, np.ndarray]], start_sample: int, end_sample: int) -> np.ndarray:
    kept: list[np.ndarray] = []
    for position, block in blocks:
        low, high = max(start_sample - position, 0), min(end_sample - position, len(block))
        if low < high:
            kept.append(block[low:high].copy())
        if position + len(block) >= end_sample:
            break
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.float32)
