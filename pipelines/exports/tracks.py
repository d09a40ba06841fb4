"""Kept clips by what they were cut from: a recording, or the channel of one, with a file of its own in the export."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from annotation.speech.aligners.aligner import BY_SHARES
from pipelines.exports.plain import relative_name, same_file
from voxmill.core.hashing import sha256_text, short_hash
from voxmill.data.dataset import RECORDINGS_INDEX, Dataset
from voxmill.data.records import ClipId, Hertz, Seconds, Word

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A recording, or a channel of it, from 0."""

    recording_id: str
    path: str | None
    channel: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Who placed the words of a clip in time."""

    aligner: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedClip(Track):
    """A clip with its text, in the time of its recording."""

    clip_id: ClipId
    start_sample: int
    end_sample: int
    sample_rate: Hertz
    text: str
    words: tuple[Word, ...]
    transcript: Placing | None
    speaker: str | None

    @property
    def start(self) -> int:
        """Where it starts in the recording. [µs]"""
        return round(self.start_sample * MICROSECONDS / self.sample_rate)

    @property
    def end(self) -> int:
        """Where it ends in the recording. [µs]"""
        return round(self.end_sample * MICROSECONDS / self.sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Length:
    recording_id: str | None
    duration: Seconds | None


@dataclass(frozen=True, slots=True)
class TrackClips:
    """The clips of a track by time, the name of its file, and its length in µs, at least the end of the last clip."""

    name: str
    clips: list[TimedClip]
    length: int


class FileNames:
    """The name of each track's file below a folder; no two tracks have one.

    A name is like the recording's path; those that several tracks would have get a hash of the track. Holds a number a
    track of the dataset.
    """

    def __init__(self, dataset: Dataset, suffix: str):
        self._suffix = suffix
        self._shared: set[int] = set()
        seen: set[int] = set()
        for part in dataset.parts(Track):
            for track in set(part):
                name = short_hash(same_file(self._plain(track)), 8)
                (self._shared if name in seen else seen).add(name)

    def _plain(self, track: Track) -> str:
        channel = "" if track.channel is None else f".ch{track.channel}"
        return relative_name(track.path or track.recording_id, f"{channel}{self._suffix}")

    def of(self, track: Track) -> str:
        """With slashes."""
        name = self._plain(track)
        if short_hash(same_file(name), 8) not in self._shared:
            return name
        which = sha256_text(f"{track.recording_id}:{track.channel}:{track.path}")[:10]
        return f"{name.removesuffix(self._suffix)}-{which}{self._suffix}"


def tracks(dataset: Dataset, suffix: str) -> Iterator[TrackClips]:
    """Every track that clips were kept of, those of a bucket at a time.

    Raises:
        UserError: an index cannot be read, or lacks a column.
    """
    names = FileNames(dataset, suffix)
    lengths = dataset.parts(_Length, RECORDINGS_INDEX)
    for clips, recordings in zip(dataset.parts(TimedClip), lengths, strict=True):
        seconds = {row.recording_id: row.duration for row in recordings}
        for _, group in groupby(sorted(clips, key=_order), key=_track):
            mine = list(group)
            known = round((seconds.get(mine[0].recording_id) or 0.0) * MICROSECONDS)
            yield TrackClips(names.of(mine[0]), mine, max(known, *(clip.end for clip in mine), 1))


def _track(clip: TimedClip) -> tuple[str, str, int]:
    return clip.recording_id, clip.path or "", -1 if clip.channel is None else clip.channel


def _order(clip: TimedClip) -> tuple[tuple[str, str, int], int, int, ClipId]:
    return _track(clip), clip.start, clip.end, clip.clip_id


def placed_words(clip: TimedClip) -> list[tuple[int, int, str]]:
    """(start, end, word) of the words that have a time, one after another, in µs of the recording.

    Words without a time (none, no number, or no length within the clip and after the word before) are left out, and so
    are those that no aligner has placed.
    """
    if clip.transcript is not None and clip.transcript.aligner == BY_SHARES:
        return []
    placed: list[tuple[int, int, str]] = []
    earliest = clip.start
    for word in clip.words:
        start, end = _microseconds(word.start), _microseconds(word.end)
        if start is None or end is None or start >= end:
            continue
        start, end = max(clip.start + start, earliest), min(clip.start + end, clip.end)
        if start < end:
            placed.append((start, end, word.word))
            earliest = end
    return placed


def _microseconds(seconds: Seconds | None) -> int | None:
    """None for a time that is none: the index may hold null."""
    if seconds is None or not abs(seconds) < 1e9:
        return None
    return round(seconds * MICROSECONDS)
