"""The audio track of a recording as float32 blocks of one clock: a block's place is its time in the file.

Where the timestamps leave a hole, silence stands in it, so that times point into the file; what is wrong with the file
is noted, never raised, as long as anything can be decoded. FFmpeg gives up at a link of a chained Ogg that has another
rate; such a file is decoded link by link.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np

from pipelines.inputs.container import Container, open_container, open_recording, short
from pipelines.inputs.media_file import MediaFile, StorageError, open_media, part_of
from voxmill.core.audio import AudioProblem
from voxmill.data.records import AudioTrack, RecordingWarning, WarningKind

MIN_HOLE_SECONDS = 0.1
MAX_HOLE_SECONDS = 3600.0
"""A longer hole is a clock that was set: it is not filled."""
OUT_OF_SCALE = 4.0
"""Four times full scale: no decoder and no limiter goes there, samples of another scale do."""
_ZEROS = 48_000


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of all channels: float32 [channels, T] at `rate` from `start` seconds of the file on.

    names: FFmpeg's of the channels, such as `FC`.
    """

    start: float
    rate: int
    names: tuple[str, ...]
    samples: np.ndarray


@dataclass
class TrackNotes:
    """What a decode met.

    holes: (start, length) of the silence that was put in, in seconds. nonfinite, beyond: samples that are no numbers,
    and samples further out than `OUT_OF_SCALE`. peak: largest of all. first_sample: where it began after a jump.
    """

    codec: str = ""
    other_tracks: tuple[AudioTrack, ...] = ()
    warnings: list[RecordingWarning] = field(default_factory=list)
    nonfinite: int = 0
    beyond: int = 0
    holes: list[tuple[float, float]] = field(default_factory=list)
    peak: float = 0.0
    declared_seconds: float = 0.0
    first_sample: int = 0

    def warn(self, kind: WarningKind, detail: str) -> None:
        """Notes a warning, the first one of its kind."""
        if not any(one.kind == kind for one in self.warnings):
            self.warnings.append(RecordingWarning(kind=kind, detail=detail))


def decode(media: MediaFile, notes: TrackNotes, jump_to: int = 0) -> Iterator[Block]:
    """Blocks of a recording from its beginning, or from at or before sample `jump_to`.

    Raises:
        AudioProblem: nothing can be decoded.
        StorageError: the storage does not answer.
    """
    container = open_recording(media)
    clock = _Clock()
    try:
        notes.codec = container.stream.codec_context.name
        notes.other_tracks = container.other_tracks
        notes.warnings += container.warnings
        yield from _blocks(container, notes, clock, jump_to)
    except _NextLinkError:
        yield from _links(media, notes, clock)
    finally:
        container.close()
    if notes.holes:
        count, first = len(notes.holes), notes.holes[0][0]
        total = sum(length for _, length in notes.holes)
        holes = "a hole" if count == 1 else f"{count} holes"
        notes.warn("timestamp_hole", f"{holes} of {total:.1f} s without sound, from {first:.1f} s on; there is silence")
    if not clock.seconds:
        detail = notes.warnings[0].detail if notes.warnings else "no samples could be decoded"
        raise AudioProblem("decode_error", detail)


class _NextLinkError(Exception):
    """FFmpeg does not go on at a link of a chained Ogg."""


class _Clock:
    """Where in the file the next block stands, in seconds. Timestamps count from where the file begins.

    Only a lag that grows over `MIN_HOLE_SECONDS` is a hole: the timestamps of some recorders jitter.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.rate = 0
        self._origin: float | None = None
        self._expected = 0.0
        self._trusted = True

    def begin(self, container: Container) -> None:
        """Follows the timestamps of a container, the first or the next one, whose sound stands next."""
        stream, start = container.stream, container.demuxer.start_time
        self._origin = None if stream.start_time is None else float(stream.start_time * stream.time_base)
        if self._origin is not None and start is not None and start / 1e6 < self._origin - MIN_HOLE_SECONDS:
            self._origin = start / 1e6
        if self._origin is not None:
            self._origin -= self.seconds
        self._expected, self._trusted = self.seconds, True

    def distrust(self) -> None:
        """Follows timestamps no more: at another rate, a parser goes on counting at the old one."""
        self._trusted = False

    def hole(self, frame: Any, notes: TrackNotes) -> int:
        """Samples of silence that belong before a frame."""
        if frame.pts is None or not self._trusted:
            return 0
        time = float(frame.pts * frame.time_base)
        if self._origin is None:
            self._origin = time - self.seconds
        gap, lag = time - self._origin - self._expected, time - self._origin - self.seconds
        if gap < -MIN_HOLE_SECONDS or gap > MAX_HOLE_SECONDS:
            self._origin += gap
            # A link of a chained Ogg counts from 0 again.
            if gap > 0 or time > MIN_HOLE_SECONDS:
                notes.warn("timestamp_jump", f"timestamps jump by {gap:.1f} s at {self.seconds:.1f} s")
            return 0
        if lag < MIN_HOLE_SECONDS:
            return 0
        if self.seconds:
            notes.holes.append((self.seconds, lag))
        return round(lag * int(frame.sample_rate))

    def jump(self, frame: Any, notes: TrackNotes) -> None:
        """Begins at a frame in the middle of the file."""
        time = 0.0 if frame.pts is None else float(frame.pts * frame.time_base)
        self._origin = self._origin or 0.0
        self.seconds = self._expected = time - self._origin
        notes.first_sample = round(self.seconds * frame.sample_rate)

    def advance(self, frame: Any) -> None:
        """Counts a frame."""
        seconds = frame.samples / frame.sample_rate
        self.seconds += seconds
        if frame.pts is None or self._origin is None:
            self._expected += seconds
        else:
            self._expected = float(frame.pts * frame.time_base) - self._origin + seconds


def _blocks(container: Container, notes: TrackNotes, clock: _Clock, jump_to: int) -> Iterator[Block]:
    stream = container.stream
    if stream.duration:
        notes.declared_seconds = float(stream.duration * stream.time_base)
    clock.begin(container)
    names: tuple[str, ...] = ()
    if jump_to:
        # FFmpeg lands on the packet that holds the sample or on one before it.
        container.demuxer.seek(int(jump_to / stream.rate / stream.time_base), stream=stream, backward=True)
    for frame in _frames(container, notes):
        if jump_to and not clock.rate:
            clock.jump(frame, notes)
        if clock.rate and frame.sample_rate != clock.rate:
            clock.distrust()
            notes.warn(
                "rate_change",
                f"the rate changes from {clock.rate} to {frame.sample_rate} Hz at {clock.seconds:.1f} s; resampled",
            )
        clock.rate = frame.sample_rate
        samples = _to_float(frame, notes)
        if len(samples) != len(names):
            names = tuple(channel.name for channel in frame.layout.channels)
        silence = clock.hole(frame, notes)
        for begin in range(0, silence, _ZEROS):
            zeros = np.zeros((len(samples), min(_ZEROS, silence - begin)), dtype=np.float32)
            yield Block(clock.seconds, frame.sample_rate, names, zeros)
            clock.seconds += zeros.shape[1] / frame.sample_rate
        start = clock.seconds
        clock.advance(frame)
        yield Block(start, frame.sample_rate, names, samples)


def _frames(container: Container, notes: TrackNotes) -> Iterator[Any]:
    """Decoded frames; damage is noted and passed over."""
    import av

    packets = container.demuxer.demux(container.stream)
    decoded = False
    while True:
        try:
            packet = next(packets, None)
        except StorageError:
            raise
        except (av.FFmpegError, OSError) as error:
            if decoded and container.demuxer.format.name == "ogg":
                raise _NextLinkError from None
            if not decoded:
                raise AudioProblem("decode_error", short(error)) from None
            notes.warn("ends_early", f"ends early ({short(error)})")
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except StorageError:
            raise
        except av.FFmpegError as error:
            notes.warn("damaged_data", f"damaged data ({short(error)})")
            continue
        for frame in frames:
            decoded = True
            yield frame


def _to_float(frame: Any, notes: TrackNotes) -> np.ndarray:
    samples: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif samples.dtype.kind != "f":
        samples = samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    else:
        return _of_numbers(samples.astype(np.float32, copy=False), notes)
    as_float: np.ndarray = samples.astype(np.float32, copy=False)
    return as_float


def _of_numbers(samples: np.ndarray, notes: TrackNotes) -> np.ndarray:
    """Floats without those that are no numbers; those that are of another scale are counted."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not math.isfinite(peak):
        bad = ~np.isfinite(samples)
        notes.nonfinite += int(bad.any(axis=0).sum())
        samples = np.where(bad, np.float32(0), samples)
        peak = float(np.abs(samples).max(initial=0.0))
    if peak > OUT_OF_SCALE:
        notes.beyond += int((np.abs(samples) > OUT_OF_SCALE).any(axis=0).sum())
    notes.peak = max(notes.peak, peak)
    return samples


# ---- chained Ogg


def _links(media: MediaFile, notes: TrackNotes, clock: _Clock) -> Iterator[Block]:
    """Blocks of a chained Ogg from where FFmpeg gave up: each link decoded as a file of its own."""
    done, clock.seconds = clock.seconds, 0.0
    notes.nonfinite = notes.beyond = 0
    notes.holes.clear()
    file = open_media(media)
    try:
        ends = [*_link_starts(file)[1:], file.seek(0, 2)]
        start = 0
        for end in ends:
            try:
                container = open_container(part_of(file, start, end - start, owned=False))
            except AudioProblem as error:
                notes.warn("damaged_data", f"a link of the chain is damaged ({error.detail})")
                start = end
                continue
            try:
                yield from _after(_blocks(container, notes, clock, 0), done)
            except _NextLinkError:
                notes.warn("damaged_data", f"a link of the chain ends early at {clock.seconds:.1f} s")
            finally:
                container.close()
            start = end
    finally:
        file.close()


def _after(blocks: Iterator[Block], done: float) -> Iterator[Block]:
    """Blocks without the first `done` seconds of the file, which were decoded before."""
    for block in blocks:
        skip = max(round((done - block.start) * block.rate), 0)
        if skip < block.samples.shape[1]:
            yield replace(block, samples=block.samples[:, skip:])


def _link_starts(file: BinaryIO) -> list[int]:
    """Where the links of a chained Ogg begin: at pages that begin a stream and follow one that does not."""
    starts, place, was_first = [0], 0, True
    total = file.seek(0, 2)
    while place + 27 <= total:
        file.seek(place)
        head = file.read(27)
        if head[:4] != b"OggS":
            place = _next_page(file, place + 1, total)
            continue
        is_first = bool(head[5] & 2)
        if is_first and not was_first:
            starts.append(place)
        was_first = is_first
        place += 27 + head[26] + sum(file.read(head[26]))
    return starts


def _next_page(file: BinaryIO, place: int, total: int) -> int:
    while place < total:
        file.seek(place)
        found = file.read(1 << 16).find(b"OggS")
        if found >= 0:
            return place + found
        place += (1 << 16) - 3
    return total
