"""Recordings decoded as a stream with PyAV, whatever the container claims; memory is bounded by what the caller keeps.

The container is sniffed from content, not taken from the name. Everything is mono float32 at the source's rate,
above 48 kHz resampled to 48 kHz. A window of a long file is read by a jump into it; whether a decoder gives the same
samples after a jump is checked: scanning keeps digests of blocks, and reading compares them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.inputs.media_file import MediaFile, StorageError, open_media
from voxmill.core.audio import AudioProblem
from voxmill.data.records import Channel

Media = str | MediaFile
"""A local path or URI, or a part of what lies there."""
MAX_RATE = 48000
FRAME_SECONDS = 0.02
QUIET_FRAMES = 10
CHANNELS: tuple[Channel, ...] = ("mean", "left", "right")
BLOCK = 480_000
"""Samples that share a digest: 10 s at 48 kHz."""
PREROLL = 48_000
"""A jump lands so many samples early: decoders need some frames before they give what they gave in sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """The result of one full decode. `pcm_sha256` is over the mono float32 little-endian samples at `sample_rate`.

    `digests` has one a `BLOCK` samples, the last one of what is left; none where a jump into the file is hopeless.
    """

    sample_rate: int
    channels: int
    codec: str
    num_samples: int
    pcm_sha256: str
    peak: float
    nonfinite: int
    channel: Channel
    complete: bool
    warning: str
    digests: tuple[str, ...]


@dataclass
class _Damage:
    """Damage that a decode met; `first_sample` is where it began after a jump."""

    warning: str = ""
    nonfinite: int = 0
    declared_seconds: float = 0.0
    first_sample: int = 0


def _open(media: Media) -> Any:
    import av

    if isinstance(media, str):
        media = MediaFile(path=media, name=media)
    stream = open_media(media)
    try:
        # Raw G.722 has no header to sniff: here the name is all there is.
        raw = "g722" if media.name.lower().endswith(".g722") else None
        container = av.open(stream, format=raw, metadata_errors="replace")
    except StorageError:
        stream.close()
        raise
    except (av.FFmpegError, ValueError) as error:
        stream.close()
        raise AudioProblem("not_audio", _short(error)) from None
    if not container.streams.audio:
        container.close()
        stream.close()
        raise AudioProblem("not_audio", "no audio stream")
    return container, stream


def _short(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)[:200]


def _channels(path: Media, damage: _Damage, jump_to: int = 0) -> Iterator[tuple[int, str, np.ndarray]]:
    """Blocks as (rate, codec, float32 [channels, samples]) of the first audio stream, from at or before `jump_to`."""
    import av

    container, file = _open(path)
    decoded = False
    try:
        stream = container.streams.audio[0]
        codec = stream.codec_context.name
        damage.declared_seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
        rate = 0
        if jump_to:
            # FFmpeg lands on the packet that holds the sample or on one before it.
            container.seek(int(jump_to / stream.rate / stream.time_base), stream=stream, backward=True)
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except StorageError:
                    raise
                except av.FFmpegError as error:
                    damage.warning = damage.warning or f"damaged data ({_short(error)})"
                    continue
                for frame in frames:
                    block = _to_float(frame)
                    if rate and frame.sample_rate != rate:
                        damage.warning = f"the rate changes from {rate} to {frame.sample_rate} Hz; cut there"
                        return
                    if jump_to and not rate:
                        begin = (frame.pts - (stream.start_time or 0)) * stream.time_base
                        damage.first_sample = round(begin * frame.sample_rate)
                    rate = frame.sample_rate
                    bad = ~np.isfinite(block)
                    if bad.any():
                        damage.nonfinite += int(bad.any(axis=0).sum())
                        block = np.where(bad, np.float32(0), block)
                    decoded = True
                    yield rate, codec, block
        except StorageError:
            raise
        except (av.FFmpegError, OSError) as error:
            if not decoded:
                raise AudioProblem("decode_error", _short(error)) from None
            damage.warning = damage.warning or f"ends early ({_short(error)})"
    finally:
        container.close()
        file.close()
    if not decoded:
        raise AudioProblem("decode_error", damage.warning or "no samples could be decoded")


def _to_float(frame: Any) -> np.ndarray:
    samples: np.ndarray = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif samples.dtype.kind != "f":
        samples = samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    as_float: np.ndarray = samples.astype(np.float32)
    return as_float


def _mono(block: np.ndarray, channel: Channel) -> np.ndarray:
    mixed: np.ndarray = block[1 if channel == "right" and len(block) > 1 else 0]
    if channel == "mean" or block.shape[0] == 1:
        mixed = block.mean(axis=0, dtype=np.float32)
    return mixed


class _Limiter:
    """Resamples a mono stream to 48 kHz where its rate is above; passes it on untouched otherwise."""

    def __init__(self, rate: int):
        import soxr

        self.rate = min(rate, MAX_RATE)
        self._resampler = soxr.ResampleStream(rate, MAX_RATE, 1, dtype="float32") if rate > MAX_RATE else None

    def __call__(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        return block if self._resampler is None else self._resampler.resample_chunk(block, last=last)


def stream(path: Media, channel: Channel = "mean") -> Iterator[np.ndarray]:
    """Mono float32 blocks of a whole file at its rate (at most 48 kHz).

    Raises:
        AudioProblem: nothing can be decoded.
    """
    limiter: _Limiter | None = None
    for rate, _, block in _channels(path, _Damage()):
        limiter = limiter or _Limiter(rate)
        yield limiter(_mono(block, channel))
    if limiter is not None:
        tail = limiter(np.zeros(0, dtype=np.float32), last=True)
        if len(tail):
            yield tail


def scan(
    path: Media, window_seconds: float = 600.0, search_seconds: float = 60.0
) -> tuple[MediaInfo, list[tuple[int, int]]]:
    """Decodes a file once: what it is, and sample bounds of windows cut at the quietest moments.

    Two channels out of phase would cancel in their mean; such a file is read from its louder channel.

    Raises:
        AudioProblem: nothing can be decoded.
    """
    damage = _Damage()
    hashes = {channel: hashlib.sha256() for channel in CHANNELS}
    blocks = {channel: _Digests() for channel in CHANNELS}
    energy: dict[Channel, list[np.ndarray]] = {channel: [] for channel in CHANNELS}
    power = dict.fromkeys(CHANNELS, 0.0)
    peak, count, channels, codec = 0.0, 0, 1, ""
    limiters: dict[Channel, _Limiter] = {}
    frames: dict[Channel, _Frames] = {}
    rate = 0

    def take(channel: Channel, mono: np.ndarray) -> int:
        nonlocal peak
        content = np.ascontiguousarray(mono, dtype="<f4").data.cast("B")
        hashes[channel].update(content)
        blocks[channel].update(content)
        energy[channel].append(frames[channel](mono))
        power[channel] += float(np.square(mono, dtype=np.float64).sum())
        peak = max(peak, float(np.abs(mono).max(initial=0.0)))
        return len(mono)

    wanted: tuple[Channel, ...] = ()
    for rate, block_codec, block in _channels(path, damage):
        if not wanted:
            codec = block_codec
            channels = block.shape[0]
            wanted = CHANNELS if channels == 2 else ("mean",)
            limiters = {channel: _Limiter(rate) for channel in wanted}
            frames = {channel: _Frames(round(min(rate, MAX_RATE) * FRAME_SECONDS)) for channel in wanted}
        for channel in wanted:
            num = take(channel, limiters[channel](_mono(block, channel)))
        count += num
    for channel in wanted:
        num = take(channel, limiters[channel](np.zeros(0, dtype=np.float32), last=True))
    count += num
    chosen: Channel = "mean"
    louder: Channel = "left" if power["left"] >= power["right"] else "right"
    # Uncorrelated channels leave half of one channel's power in the mean; below a tenth they cancel.
    if channels == 2 and power["mean"] < 0.1 * power[louder]:
        chosen = louder
    seconds = count / min(rate, MAX_RATE)
    # Some containers only estimate their length; what is missing must be more than that to be worth a word.
    if not damage.warning and seconds < 0.98 * damage.declared_seconds - 0.5:
        damage.warning = f"ends early ({seconds:.1f} s where the header has {damage.declared_seconds:.1f} s)"
    if damage.nonfinite > count / 2:
        raise AudioProblem("non_finite", f"{damage.nonfinite} of {count} samples are not finite")
    if damage.nonfinite:
        damage.warning = "; ".join(filter(None, [damage.warning, f"{damage.nonfinite} samples not finite, set to 0"]))
    native_rate, rate = rate, min(rate, MAX_RATE)
    # A resampler's state and what follows damage depend on all that came before.
    can_jump = not damage.warning and native_rate <= MAX_RATE
    info = MediaInfo(
        sample_rate=rate,
        channels=channels,
        codec=codec,
        num_samples=count,
        pcm_sha256=hashes[chosen].hexdigest(),
        peak=peak,
        nonfinite=damage.nonfinite,
        channel=chosen,
        complete=not damage.warning,
        warning=damage.warning,
        digests=tuple(blocks[chosen].finish()) if can_jump else (),
    )
    return info, _cut(np.concatenate(energy[chosen]), count, rate, window_seconds, search_seconds)


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
    """Energy of consecutive frames of a stream that comes in blocks of any length."""

    def __init__(self, size: int):
        self.size = size
        self._rest = np.zeros(0, dtype=np.float32)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        joined = np.concatenate([self._rest, block])
        whole = len(joined) // self.size * self.size
        self._rest = joined[whole:]
        energy: np.ndarray = np.square(joined[:whole].reshape(-1, self.size)).mean(axis=1)
        return energy


def _cut(
    energy: np.ndarray, count: int, rate: int, window_seconds: float, search_seconds: float
) -> list[tuple[int, int]]:
    """Windows no longer than `window_seconds`, each ending in the quietest 0.2 s of its last `search_seconds`."""
    size = round(rate * FRAME_SECONDS)
    window, search = round(window_seconds / FRAME_SECONDS), round(search_seconds / FRAME_SECONDS)
    start, bounds = 0, []
    while count / size - start > window:
        low = start + max(window - search, window // 2)
        run = np.convolve(energy[low : start + window], np.ones(QUIET_FRAMES), mode="valid")
        middle = low + int(np.argmin(run)) + QUIET_FRAMES // 2
        bounds.append((start * size, middle * size))
        start = middle
    return [*bounds, (start * size, count)]


def digests_of(digests: tuple[str, ...], start_sample: int, end_sample: int) -> tuple[str, ...]:
    """Those of a file's digests whose blocks the window touches."""
    return digests[start_sample // BLOCK : -(-end_sample // BLOCK)]


def read_window(
    path: Media, start_sample: int, end_sample: int, channel: Channel = "mean", digests: Sequence[str] = ()
) -> np.ndarray:
    """Mono float32 samples [start, end) of a file.

    Args:
        digests: the window's own, see `digests_of`. With them the file is entered near the window; where what comes
            out is not what the scan met there (AAC fills bands with noise of its own), and without them, it is
            decoded from its beginning, the only way to an exact cut.

    Raises:
        AudioProblem: nothing can be decoded, or the file is shorter than it was when it was scanned.
    """
    first = start_sample // BLOCK * BLOCK
    if digests and first:
        last = first + len(digests) * BLOCK
        audio = _collect(_from(path, first - PREROLL, channel), first, last)
        actual = _Digests()
        actual.update(np.ascontiguousarray(audio, dtype="<f4").data.cast("B"))
        if actual.finish() == list(digests):
            return audio[start_sample - first : end_sample - first].copy()
    audio = _collect(_whole(path, channel), start_sample, end_sample)
    if len(audio) != end_sample - start_sample:
        raise AudioProblem("changed", f"{len(audio)} samples where scanning counted {end_sample - start_sample}")
    return audio


def _whole(path: Media, channel: Channel) -> Iterator[tuple[int, np.ndarray]]:
    position = 0
    for block in stream(path, channel):
        yield position, block
        position += len(block)


def _from(path: Media, start_sample: int, channel: Channel) -> Iterator[tuple[int, np.ndarray]]:
    """(position, mono block) from at or before `start_sample` on."""
    damage, position = _Damage(), -1
    for _, _, block in _channels(path, damage, jump_to=start_sample):
        position = damage.first_sample if position < 0 else position
        yield position, _mono(block, channel)
        position += block.shape[1]


def _collect(blocks: Iterator[tuple[int, np.ndarray]], start_sample: int, end_sample: int) -> np.ndarray:
    kept: list[np.ndarray] = []
    for position, block in blocks:
        low, high = max(start_sample - position, 0), min(end_sample - position, len(block))
        if low < high:
            kept.append(block[low:high].copy())
        if position + len(block) >= end_sample:
            break
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.float32)
