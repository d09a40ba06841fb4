"""Audio of a corpus by the piece: clips of a finished dataset, or files of a folder. Trainers and evaluation read it.

It stands below both because neither may import the other; of the shard format it knows the place of a clip's bytes that
an index row states.

Only headers are read to list a corpus, and a piece of a clip is a seek. What cannot be used is counted and named, and
never ends a run: a header that lies, silence and NaN show only when a piece is read.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from voxmill.core.audio import AudioProblem, Samples, check, decode, mono, read_header, unreadable
from voxmill.core.errors import UserError
from voxmill.core.storage import read_range, to_path, uri
from voxmill.data.dataset import Dataset, is_dataset
from voxmill.data.shards import shard_exists

SUFFIXES = frozenset([".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif"])
"""What libsndfile reads by the piece."""
MIN_RATE, MAX_RATE = 8_000, 192_000
NAMED = 20
"""So many clips of each reason are named; all are counted."""


@dataclass(frozen=True)
class Clip:
    """One clip of a recording. `offset` and `size` are bytes in its shard, -1 for a file of its own."""

    name: str
    recording: str
    path: str
    sample_rate: int
    num_samples: int
    offset: int = -1
    size: int = -1

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


class SkippedClips(TypedDict):
    """Clips that were skipped for one reason: how many, and the names of the first `NAMED`."""

    count: int
    names: list[str]


@dataclass
class Skipped:
    """Clips that were skipped: how many for each reason, and the names of the first `NAMED` of them."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, reason: str, name: str) -> None:
        """Counts one more, from any thread. A clip that is skipped again counts again and is named once."""
        with self._lock:
            self.counts[reason] += 1
            named = self.names.setdefault(reason, [])
            if name not in named and len(named) < NAMED:
                named.append(name)

    def as_json(self) -> dict[str, SkippedClips]:
        """By reason: how many, and the names of the first."""
        return {reason: {"count": self.counts[reason], "names": self.names[reason]} for reason in sorted(self.counts)}

    def __str__(self) -> str:
        reasons = [f"{reason} {count} ({', '.join(self.names[reason][:3])})" for reason, count in self.counts.items()]
        return "; ".join(reasons) or "nothing"


def find_clips(source: str | Path, *, min_seconds: float) -> tuple[list[Clip], Skipped]:
    """Clips of `source` that are `min_seconds` or longer, sorted by name, and those that were skipped.

    Args:
        source: OUT of a finished `voxmill annotate`, a folder of audio, or one file.

    Raises:
        UserError: no such place, no audio in it, or none that can be used; names what is there.
    """
    path, skipped = to_path(source), Skipped()
    if is_dataset(path):
        listed = _of_dataset(Dataset.open(path), skipped)
    elif not path.exists():
        raise UserError(f"{source}: no such file or folder; name a dataset or a folder of audio")
    else:
        listed = _of_files(path, skipped)
    clips = []
    for clip in listed:
        if not MIN_RATE <= clip.sample_rate <= MAX_RATE:
            skipped.add("sample_rate", clip.name)
        elif clip.seconds < min_seconds:
            skipped.add("too_short", clip.name)
        else:
            clips.append(clip)
    if not clips:
        raise UserError(
            f"{source}: no clip of {min_seconds:g} s or more that can be read; skipped: {skipped}; "
            "name a dataset with clips.parquet, or a folder of wav, flac, ogg, opus or mp3"
        )
    return sorted(clips, key=lambda clip: clip.name), skipped


def _of_dataset(dataset: Dataset, skipped: Skipped) -> Iterator[Clip]:
    folder, known = dataset.path, dict[str, bool]()
    for clip in dataset.clips():
        if clip.shard not in known:
            known[clip.shard] = shard_exists(folder, clip.shard)
        if not known[clip.shard]:
            skipped.add("missing", clip.clip_id)
            continue
        yield Clip(
            name=clip.clip_id,
            recording=clip.recording_id,
            path=uri(folder / clip.shard),
            sample_rate=clip.sample_rate,
            num_samples=clip.end_sample - clip.start_sample,
            offset=clip.offset,
            size=clip.size,
        )


def _of_files(path: Path, skipped: Skipped) -> Iterator[Clip]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    for file in files:
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        try:
            header = read_header(file)
        except AudioProblem as problem:
            skipped.add(problem.reason, name)
            continue
        yield Clip(name, name, uri(file), header.rate, header.num_samples)


def read_clip(clip: Clip, start: int = 0, length: int | None = None) -> Samples:
    """Mono float32 samples [start, start + length) of a clip at its own rate; channels are averaged.

    Raises:
        AudioProblem: it cannot be decoded, is not as long or of another rate than listed, holds NaN or infinity, or
            is silent.
    """
    length = clip.num_samples - start if length is None else length
    samples_TC, rate = _decode(clip, start, length)
    if rate != clip.sample_rate:
        raise AudioProblem("changed", f"{clip.name}: {rate} Hz instead of {clip.sample_rate}")
    if len(samples_TC) != length:
        raise AudioProblem("changed", f"{clip.name}: {len(samples_TC)} samples instead of {length}")
    samples_T = mono(samples_TC)
    check(samples_T, rate, min_seconds=0)
    return samples_T


def _decode(clip: Clip, start: int, length: int) -> tuple[Samples, int]:
    path = to_path(clip.path)
    try:
        if clip.offset >= 0:
            return decode(read_range(path, clip.offset, clip.size), start=start, length=length)
        with path.open("rb") as file:
            return decode(file, start=start, length=length)
    except OSError as error:
        raise unreadable(error) from None
