"""From what the user named to work units: inputs are scanned once (Ray tasks), results kept for the next run.

Scanning decodes a file to the end: it finds damage, hashes the PCM and chooses where long recordings are cut.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import LabelConfig
from pipelines.inputs.manifest import Entry
from pipelines.inputs.media import digests_of
from pipelines.units.unit import Part, Unit, group
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import JobError
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint, sha256_text
from voxmill.core.local_ray import map_tasks
from voxmill.data.shards import to_json


@dataclass(frozen=True)
class Scanned:
    """One input after scanning: `info` and `bounds` where it could be read, `problem` (reason, detail) otherwise."""

    entry: Entry
    info: dict[str, Any] | None
    bounds: list[tuple[int, int]]
    problem: tuple[str, str] | None


def _cache_path(out: Path, entry: Entry, window_seconds: float) -> Path | None:
    try:
        stat = os.stat(entry.path)
    except OSError:
        return None
    identity = [os.fsencode(os.path.abspath(entry.path)).hex(), stat.st_size, stat.st_mtime_ns, window_seconds]
    key = sha256_text(json.dumps(identity))[:32]
    return out / "work" / "scans" / key[:2] / f"{key}.json"


def scan_one(path: str, window_seconds: float) -> dict[str, Any]:
    """Result of decoding one file to the end, as plain JSON."""
    from pipelines.inputs import media

    try:
        info, bounds = media.scan(path, window_seconds)
    except AudioProblem as error:
        return {"problem": [error.reason, error.detail]}
    return {"info": dataclasses.asdict(info), "bounds": bounds, "problem": None}


def scan(entries: list[Entry], out: Path, label: LabelConfig) -> Iterator[Scanned]:
    """Scans every input in Ray tasks, in any order; what an earlier run scanned is read from OUT.

    Raises:
        JobError: the machine, not a file, is at fault.
    """

    def run(item: tuple[Entry, Path | None]) -> dict[str, Any]:
        entry, cache = item
        result = scan_one(entry.path, label.window_seconds)
        if cache is not None:
            write_atomically(cache, to_json(result))
        return result

    unknown: list[tuple[Entry, Path | None]] = []
    for entry in entries:
        cache = None if entry.problem else _cache_path(out, entry, label.window_seconds)
        if entry.problem is not None:
            yield Scanned(entry, None, [], entry.problem)
        elif cache is not None and cache.exists():
            yield _scanned(entry, json.loads(cache.read_bytes()))
        else:
            unknown.append((entry, cache))
    # A file that ends the decoder's process is tried twice; then that file is rejected and the job continues.
    for (entry, _), result in map_tasks(run, unknown, max_retries=1, on_error=_failed):
        yield _scanned(entry, result)


def _failed(item: tuple[Entry, Path | None], error: Exception) -> dict[str, Any]:
    from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

    if isinstance(error, WorkerCrashedError | OutOfMemoryError):
        return {"problem": ("crash", f"its decoder's process died ({type(error).__name__})")}
    cause = error.cause if isinstance(error, RayTaskError) else None
    raise JobError(f"scanning {item[0].name!r}: {cause or error}") from None


def _scanned(entry: Entry, result: dict[str, Any]) -> Scanned:
    if result["problem"]:
        return Scanned(entry, None, [], (result["problem"][0], result["problem"][1]))
    return Scanned(entry, result["info"], [(a, b) for a, b in result["bounds"]], None)


@dataclass(frozen=True)
class Corpus:
    """What is to be done: units in a stable order, inputs that ended while scanning, and every input by name."""

    units: list[Unit]
    scanned: list[Scanned]
    duplicates: dict[str, str]


def plan(scanned: list[Scanned], label: LabelConfig) -> Corpus:
    """Names recordings by their PCM, sets repeats aside, groups the rest into units. Depends on content alone."""
    scanned = sorted(scanned, key=lambda s: s.entry.name)
    first: dict[str, str] = {}
    duplicates: dict[str, str] = {}
    parts: list[Part] = []
    for item in scanned:
        if item.info is None:
            continue
        entry, info = item.entry, item.info
        recording_id = recording_id_of(item)
        assert recording_id is not None
        if recording_id in first:
            duplicates[entry.name] = first[recording_id]
            continue
        first[recording_id] = entry.name
        for window, (start, end) in enumerate(item.bounds):
            parts.append(
                Part(
                    recording_id=recording_id,
                    name=entry.name,
                    path=entry.path,
                    window=window,
                    start_sample=start,
                    end_sample=end,
                    sample_rate=info["sample_rate"],
                    channel_choice=info["channel_choice"],
                    digests=digests_of(info["digests"], start, end),
                    session=entry.session or entry.name,
                    speaker=entry.speaker,
                    text=entry.text,
                    language=entry.language,
                    licence=entry.licence,
                )
            )
    return Corpus(group(parts, label.unit_seconds, label_fingerprint(label)), scanned, duplicates)


def label_fingerprint(label: LabelConfig) -> str:
    """What a unit's name says of the configuration that labelled it."""
    return fingerprint({"label": label.model_dump(mode="json")})


def recording_id_of(item: Scanned) -> str | None:
    """The identity of a readable input. The rate is part of it: the same samples at another rate sound different."""
    if item.info is None:
        return None
    return sha256_text(f"{item.info['pcm_sha256']}:{item.info['sample_rate']}")[:32]
