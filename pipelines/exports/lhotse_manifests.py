"""Clips as lhotse reads them: `recordings.jsonl.gz`, `supervisions.jsonl.gz`, `cuts.jsonl.gz`, and the audio.

A clip is a recording of its own with one supervision and one cut, since its sound is not always that of the recording
that it was cut from (gain, separation). Where it lay there is in `custom`. Manifests are written in one pass, line by
line, and name audio by absolute path, or by URI in object storage, as lhotse resolves it.
"""

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import soundfile

from pipelines.exports.plain import clip_file
from pipelines.exports.stored_audio import stored_flac
from pipelines.exports.tracks import MICROSECONDS, TimedClip, placed_words
from voxmill.core.files import atomic_file, write_atomically
from voxmill.core.storage import absolute, is_remote, uri
from voxmill.data.dataset import Dataset
from voxmill.data.records import ClassColumn, Description, ShardPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clip(TimedClip):
    session: str
    language: str
    gender: ClassColumn | None
    descriptions: tuple[Description, ...]
    shard: str
    offset: int
    size: int
    sha256: str | None

    @property
    def place(self) -> ShardPlace:
        return ShardPlace(shard=self.shard, offset=self.offset, size=self.size, sha256=self.sha256)


class _Source(TypedDict):
    type: str
    channels: list[int]
    source: str


class _Recording(TypedDict):
    id: str
    sources: list[_Source]
    sampling_rate: int
    num_samples: int
    duration: float
    channel_ids: list[int]


class _Custom(TypedDict):
    """Where the clip lay in its recording, in seconds, and its descriptions."""

    recording: str
    start: float
    end: float
    recording_channel: int | None
    session: str
    descriptions: list[str]


class _Supervision(TypedDict):
    id: str
    recording_id: str
    start: float
    duration: float
    channel: int
    text: str
    language: NotRequired[str]
    speaker: NotRequired[str]
    gender: NotRequired[str]
    custom: _Custom
    alignment: NotRequired[dict[str, list[tuple[str, float, float]]]]


class _Cut(TypedDict):
    id: str
    start: float
    duration: float
    channel: int
    supervisions: list[_Supervision]
    recording: _Recording
    type: str


def export_lhotse(dataset: Dataset, folder: Path, counts: Counter[str]) -> None:
    """Writes the audio and the three manifests; the cuts last.

    Raises:
        UserError: a shard or index is damaged.
    """
    with ExitStack() as stack:
        # The last to be opened is the first to be closed, and so to appear.
        cuts, supervisions, recordings = (
            stack.enter_context(_lines(folder / f"{name}.jsonl.gz")) for name in ("cuts", "supervisions", "recordings")
        )
        for part in dataset.parts(_Clip):
            for clip in part:
                path = absolute(folder) / clip_file(clip.clip_id)
                content = stored_flac(dataset, clip.place, clip.clip_id)
                if not path.exists():
                    write_atomically(path, content)
                info = soundfile.info(io.BytesIO(content))
                recording = _recording(clip.clip_id, path, info.samplerate, info.frames)
                supervision = _supervision(clip, recording, counts)
                counts["clips"] += 1
                recordings.write(_line(recording))
                supervisions.write(_line(supervision))
                cut: _Cut = {
                    "id": clip.clip_id,
                    "start": 0.0,
                    "duration": recording["duration"],
                    "channel": 0,
                    "supervisions": [supervision],
                    "recording": recording,
                    "type": "MonoCut",
                }
                cuts.write(_line(cut))


@contextmanager
def _lines(path: Path) -> Iterator[gzip.GzipFile]:
    """A gzip file without a name or a time in it: the same lines give the same bytes."""
    with atomic_file(path) as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as lines:
        yield lines


def _line(value: _Recording | _Supervision | _Cut) -> bytes:
    return f"{json.dumps(value, ensure_ascii=False)}\n".encode("utf-8", "replace")


def _recording(clip_id: str, path: Path, rate: int, num_samples: int) -> _Recording:
    return {
        "id": clip_id,
        "sources": [{"type": "url" if is_remote(path) else "file", "channels": [0], "source": uri(path)}],
        "sampling_rate": rate,
        "num_samples": num_samples,
        "duration": num_samples / rate,
        "channel_ids": [0],
    }


def _supervision(clip: _Clip, recording: _Recording, counts: Counter[str]) -> _Supervision:
    supervision: _Supervision = {
        "id": clip.clip_id,
        "recording_id": clip.clip_id,
        "start": 0.0,
        "duration": recording["duration"],
        "channel": 0,
        "text": clip.text,
        "custom": {
            "recording": clip.path or clip.recording_id,
            "start": clip.start_sample / clip.sample_rate,
            "end": clip.end_sample / clip.sample_rate,
            "recording_channel": clip.channel,
            "session": clip.session,
            "descriptions": [description.text for description in clip.descriptions],
        },
    }
    if clip.language:
        supervision["language"] = clip.language
    if clip.speaker:
        supervision["speaker"] = clip.speaker
    if clip.gender is not None and clip.gender.label:
        supervision["gender"] = clip.gender.label
    words = placed_words(clip)
    counts["words_without_times"] += len(clip.words) - len(words)
    if words:
        supervision["alignment"] = {
            "word": [
                (word, (start - clip.start) / MICROSECONDS, (end - start) / MICROSECONDS) for start, end, word in words
            ]
        }
    return supervision
