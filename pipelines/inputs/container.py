"""A recording opened: its container sniffed from content, the audio track that is read, and headers that are wrong.

The track is the one that the container marks as its default, as players choose. A header whose size is too small (32
bits that have wrapped) is replaced, so that all of the sound is read; chunks that follow the sound are told apart.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipelines.inputs.media_file import MediaFile, StorageError, is_seeking, open_media, part_of, read_head
from voxmill.core.audio import AudioProblem
from voxmill.data.records import AudioTrack, RecordingWarning

RAW_FORMATS = {"g722": "g722", "gsm": "gsm"}
"""Formats without a header to sniff, by suffix: here the name is all there is."""
_MIN_REST = 4096
"""Fewer bytes after the sound are nobody's sound."""
_NO_SIZE = 0x7FFF0000
"""What writes to a pipe states such a size, or a larger one."""
_MAX_CHUNKS = 64
_ASIDE = ("comment", "descriptions", "visual_impaired", "hearing_impaired", "clean_effects", "karaoke")
"""Tracks marked as one of these are read only where there is no other."""


@dataclass(frozen=True, slots=True)
class Container:
    """An open recording. `demuxer`: PyAV's container, `stream`: its audio stream that is read."""

    demuxer: Any
    stream: Any
    file: BinaryIO
    other_tracks: tuple[AudioTrack, ...] = ()
    warnings: tuple[RecordingWarning, ...] = ()

    def close(self) -> None:
        """Closes the container and its file."""
        self.demuxer.close()
        self.file.close()


def open_recording(media: MediaFile) -> Container:
    """Opens a recording for decoding.

    Raises:
        AudioProblem: missing, no_permission, empty_file, not_audio or changed.
        StorageError: the storage does not answer.
    """
    file = open_media(media)
    try:
        file, warnings = _with_true_size(file)
        raw = RAW_FORMATS.get(media.name.rpartition(".")[2].lower())
        return open_container(file, raw, warnings)
    except (StorageError, AudioProblem):
        file.close()
        raise


def open_container(file: BinaryIO, raw: str | None = None, warnings: tuple[RecordingWarning, ...] = ()) -> Container:
    """Opens what a binary file holds.

    Args:
        raw: FFmpeg's name of a format that cannot be sniffed.

    Raises:
        AudioProblem: not_audio. StorageError: the storage does not answer.
    """
    import av

    try:
        demuxer = av.open(file, format=raw, metadata_errors="replace")
    except StorageError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise AudioProblem("not_audio", short(error)) from None
    streams = [stream for stream in demuxer.streams.audio if stream.codec_context is not None]
    if not streams:
        demuxer.close()
        raise AudioProblem("not_audio", "no audio stream")
    chosen = _chosen(streams)
    others = tuple(_track(stream) for stream in streams if stream is not chosen)
    return Container(demuxer, chosen, file, others, warnings)


def may_be_sound(media: MediaFile) -> bool:
    """Whether an object begins like sound; one that does not need not be fetched to know it.

    Raises:
        AudioProblem: missing or empty_file. StorageError: the storage does not answer, or refuses.
    """
    head = read_head(media)
    if is_seeking(head):
        return True
    try:
        open_container(io.BytesIO(head)).close()
    except AudioProblem:
        return False
    return True


def short(error: Exception) -> str:
    """An error of FFmpeg in a few words."""
    return str(getattr(error, "strerror", None) or error)[:200]


def _chosen(streams: Sequence[Any]) -> Any:
    """The stream that is marked as the default, else the first one for everybody."""
    from av.stream import Disposition

    aside = Disposition(0)
    for name in _ASIDE:
        aside |= Disposition[name]
    marked = [stream for stream in streams if stream.disposition & Disposition.default]
    common = [stream for stream in streams if not stream.disposition & aside]
    return (marked or common or streams)[0]


def _track(stream: Any) -> AudioTrack:
    return AudioTrack(
        index=stream.index,
        codec=stream.codec_context.name,
        channels=stream.channels,
        sample_rate=stream.rate or 0,
        language=stream.metadata.get("language", ""),
        title=stream.metadata.get("title", ""),
    )


# ---- sizes of 32 bits


def _with_true_size(file: BinaryIO) -> tuple[BinaryIO, tuple[RecordingWarning, ...]]:
    """The file, with another size in the header of a WAV or AIFF whose own is too small for the sound in it.

    Where the header has more than there is, FFmpeg reads what is there; that is only told.
    """
    head = file.read(12)
    file.seek(0)
    kind = (head[:4], head[8:12])
    if kind == (b"RIFF", b"WAVE"):
        sound, order = b"data", "<"
    elif kind in ((b"FORM", b"AIFF"), (b"FORM", b"AIFC")):
        sound, order = b"SSND", ">"
    else:
        return file, ()
    total = file.seek(0, 2)
    place = _find(file, total, sound, order)
    if place is None:
        file.seek(0)
        return file, ()
    size, end = _size(file, place, order), _true_end(file, total, place, order)
    file.seek(0)
    if end is None:
        missing = place + 8 + size - total
        if missing < _MIN_REST or size >= _NO_SIZE:
            return file, ()
        detail = f"ends early: {missing} of the {size} bytes of sound that the header has are missing"
        return file, (RecordingWarning(kind="ends_early", detail=detail),)
    true = end - place - 8
    # The largest size is none for a WAV, which FFmpeg then reads to the end; an AIFF has no more than 32 bits can say.
    read = true if order == "<" else min(true, 0xFFFFFFFF)
    patch = struct.pack(order + "I", 0xFFFFFFFF if order == "<" else read)
    detail = f"the header says {size} bytes of sound, {read} of {true} were read"
    return part_of(file, 0, end, (place + 4, patch)), (RecordingWarning(kind="wrapped_size", detail=detail),)


def _find(file: BinaryIO, total: int, sound: bytes, order: str) -> int | None:
    """Where the chunk with the sound begins."""
    place = 12
    for _ in range(_MAX_CHUNKS):
        if place + 8 > total:
            return None
        file.seek(place)
        if file.read(4) == sound:
            return place
        size = _size(file, place, order)
        place += 8 + size + size % 2
    return None


def _size(file: BinaryIO, place: int, order: str) -> int:
    file.seek(place + 4)
    size: int = struct.unpack(order + "I", file.read(4))[0]
    return size


def _true_end(file: BinaryIO, total: int, place: int, order: str) -> int | None:
    """Where the sound ends that begins in the chunk at `place`; None where its header is right."""
    size = _size(file, place, order)
    end = place + 8 + size
    rest = total - end
    if size in (0, 0xFFFFFFFF) or rest < _MIN_REST:
        return None
    wraps = rest >> 32
    if wraps:
        return end + (wraps << 32)
    if any(_is_chunk(file, total, end + pad, order) for pad in {0, size % 2}):
        return None
    file.seek(end)
    return total if any(file.read(1 << 16)) else None


def _is_chunk(file: BinaryIO, total: int, place: int, order: str) -> bool:
    file.seek(place)
    name = file.read(4)
    # Another WAV may have been appended; then its sound counts, and its header is a click.
    if name in (b"RIFF", b"FORM"):
        return False
    return name.isascii() and name.decode("ascii").isprintable() and place + 8 + _size(file, place, order) <= total + 1
