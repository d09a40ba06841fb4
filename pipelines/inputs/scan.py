"""From what the user named to work units: inputs are scanned once (Ray tasks), results kept for the next run.

Scanning decodes a file to the end: it finds damage, hashes the PCM and chooses where long recordings are cut.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.config import LabelConfig
from pipelines.inputs import media
from pipelines.inputs.manifest import Entry
from pipelines.inputs.media import MediaInfo, digests_of
from pipelines.units.plan_files import BucketPlan
from pipelines.units.unit import group, label_fingerprint
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import JobError
from voxmill.core.files import write_atomically
from voxmill.core.hashing import sha256_text
from voxmill.core.local_ray import map_tasks
from voxmill.data.layout import bucket_of
from voxmill.data.records import Recording, SourceInfo, StageName, Window, from_json_text, to_json_text


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScan:
    """A file decoded to its end: `info` and sample bounds of its windows, or a `problem` (reason, detail)."""

    info: MediaInfo | None = None
    bounds: tuple[tuple[int, int], ...] = ()
    problem: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Scanned:
    """One input after scanning; a problem of the input itself stands in `scan`, too."""

    entry: Entry
    scan: FileScan

    @property
    def info(self) -> MediaInfo | None:
        return self.scan.info

    @property
    def problem(self) -> tuple[str, str] | None:
        return self.scan.problem


def _cache_path(out: Path, entry: Entry, window_seconds: float) -> Path | None:
    try:
        stat = os.stat(entry.path)
    except OSError:
        return None
    identity = [os.fsencode(os.path.abspath(entry.path)).hex(), stat.st_size, stat.st_mtime_ns, window_seconds]
    key = sha256_text(json.dumps(identity))[:32]
    return out / "work" / "scans" / key[:2] / f"{key}.json"


def scan_file(path: str, window_seconds: float) -> FileScan:
    """Decodes one file to its end."""
    try:
        info, bounds = media.scan(path, window_seconds)
    except AudioProblem as error:
        return FileScan(problem=(error.reason, error.detail))
    return FileScan(info=info, bounds=tuple(bounds))


def scan(entries: list[Entry], out: Path, label: LabelConfig) -> Iterator[Scanned]:
    """Scans every input in Ray tasks, in any order; what an earlier run scanned is read from OUT.

    Raises:
        JobError: the machine, not a file, is at fault.
    """

    def scan_recording(item: tuple[Entry, Path | None]) -> FileScan:
        entry, cache = item
        result = scan_file(entry.path, label.window_seconds)
        if cache is not None:
            write_atomically(cache, to_json_text(result))
        return result

    unknown: list[tuple[Entry, Path | None]] = []
    for entry in entries:
        cache = None if entry.problem else _cache_path(out, entry, label.window_seconds)
        if entry.problem is not None:
            yield Scanned(entry, FileScan(problem=entry.problem))
        elif cache is not None and cache.exists():
            yield Scanned(entry, from_json_text(FileScan, cache.read_bytes()))
        else:
            unknown.append((entry, cache))
    # A file that ends the decoder's process is tried twice; then that file is rejected and the job continues.
    for (entry, _), result in map_tasks(scan_recording, unknown, max_retries=1, on_error=_failed):
        yield Scanned(entry, result)


def _failed(item: tuple[Entry, Path | None], error: Exception) -> FileScan:
    from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

    if isinstance(error, WorkerCrashedError | OutOfMemoryError):
        return FileScan(problem=("crash", f"its decoder's process died ({type(error).__name__})"))
    cause = error.cause if isinstance(error, RayTaskError) else None
    raise JobError(f"scanning {item[0].name!r}: {cause or error}") from None


def plan(scanned: list[Scanned], label: LabelConfig, buckets: int) -> dict[int, BucketPlan]:
    """Names recordings by their PCM, sets repeats aside, groups the rest into the units of every bucket.

    Depends on content alone.
    """
    first: dict[str, str] = {}
    recordings: dict[int, list[Recording]] = {}
    windows: dict[int, list[Window]] = {}
    for item in sorted(scanned, key=lambda s: s.entry.name):
        bucket = bucket_of(item.entry.session or item.entry.name, buckets)
        row = _planned(item, first)
        recordings.setdefault(bucket, []).append(row)
        if row.state == "planned":
            windows.setdefault(bucket, []).extend(_windows(item, row))
    label_id = label_fingerprint(label)
    return {
        bucket: BucketPlan(
            recordings=tuple(rows),
            units=tuple(group(windows.get(bucket, []), label.unit_seconds, label_id, bucket)),
        )
        for bucket, rows in sorted(recordings.items())
    }


def _planned(item: Scanned, first: dict[str, str]) -> Recording:
    """An input's row before it is labelled; `first` has the names of recordings by their identity."""
    entry, info, recording_id = item.entry, item.info, recording_id_of(item)
    row = Recording(
        recording_id=recording_id,
        path=entry.name,
        session=entry.session or entry.name,
        state="planned",
        stage=StageName.SCAN,
        licence=entry.licence,
    )
    if info is None or recording_id is None:
        assert item.problem is not None
        reason, detail = item.problem
        return replace(row, state="unreadable", reason=reason, detail=detail)
    row = replace(
        row,
        detail=info.warning,
        duration=info.num_samples / info.sample_rate,
        sample_rate=info.sample_rate,
        channels=info.channels,
        codec=info.codec,
    )
    known = first.setdefault(recording_id, entry.name)
    return row if known == entry.name else replace(row, state="duplicate", reason="same_audio", detail=known)


def _windows(item: Scanned, row: Recording) -> list[Window]:
    entry, info = item.entry, item.info
    assert info is not None and row.recording_id is not None
    source = SourceInfo(
        session=row.session,
        speaker=entry.speaker,
        text=entry.text,
        language=entry.language,
        licence=entry.licence,
    )
    return [
        Window(
            recording_id=row.recording_id,
            name=entry.name,
            path=entry.path,
            start_sample=start,
            end_sample=end,
            sample_rate=info.sample_rate,
            channel=info.channel,
            digests=digests_of(info.digests, start, end),
            source=source,
        )
        for start, end in item.scan.bounds
    ]


def recording_id_of(item: Scanned) -> str | None:
    """The identity of a readable input. The rate is part of it: the same samples at another rate sound different."""
    info = item.info
    return None if info is None else sha256_text(f"{info.pcm_sha256}:{info.sample_rate}")[:32]
