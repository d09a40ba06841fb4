"""What scanning found of the entries, divided by bucket: rows, repeats among them, and a bucket's units.

Works on tables of `PlanRow`; `planning.py` says where they come from and whether workers do it.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import LabelConfig
from pipelines.inputs.entries import Entry
from pipelines.inputs.media import ReadChannel
from pipelines.inputs.scan import is_other
from pipelines.inputs.transcripts import clean, given_parts
from pipelines.inputs.windows import given_windows, quiet_windows
from pipelines.units.plan_files import BucketPlan, GivenRecording
from pipelines.units.unit import group, label_fingerprint
from voxmill.data.layout import bucket_of
from voxmill.data.records import (
    AudioTrack,
    GivenLabels,
    GivenPart,
    Recording,
    RecordingState,
    RecordingWarning,
    StageName,
    Window,
)
from voxmill.data.schemas import from_table, schema_of, to_table


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """An entry and its scan; `order` counts entries over the corpus, from 0."""

    order: int
    path: str
    name: str
    bytes_offset: int | None
    bytes_size: int | None
    row: int | None
    claimed: bool
    session: str | None
    speaker: str | None
    parts: tuple[GivenPart, ...]
    language: str | None
    licence: str | None
    labels: GivenLabels | None
    refused: str
    line: int | None
    location: str
    problem: str | None
    detail: str
    recording_id: str | None
    sample_rate: int | None
    channels: int | None
    codec: str | None
    num_samples: int | None
    scale: float
    read: tuple[ReadChannel, ...]
    other_tracks: tuple[AudioTrack, ...]
    warnings: tuple[RecordingWarning, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """What is given as the text of an entry, and what is wrong with it."""

    parts: tuple[GivenPart, ...]
    warnings: tuple[RecordingWarning, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Row `order` repeats another: what `line` named already, or the audio of the recording `duplicate_of`."""

    order: int
    line: int | None
    duplicate_of: str | None


_NOT_OF_ENTRY = ("stamp", "problem", "detail", "text", "segments", "text_path", "text_warnings", "label_warnings")
_OF_ENTRY = [field.name for field in fields(Entry) if field.name not in _NOT_OF_ENTRY]
ROWS = schema_of(PlanRow)


KEYS = pa.schema(
    [
        pa.field("key", pa.string()),
        *(ROWS.field(name) for name in ("order", "line", "name", "location", "recording_id")),
    ]
)
"""What repeats are found by."""


def plan_rows(first: int, entries: Sequence[Entry], scans: pa.Table) -> pa.Table:
    """The rows of a block whose first entry is the corpus's number `first`; reads the texts of its recordings.

    Raises:
        OSError: the storage does not answer.
    """
    table = to_table(entries, Entry)
    columns = {name: table[name] for name in _OF_ENTRY} | {name: scans[name] for name in scans.column_names}
    columns["order"] = pa.array(np.arange(first, first + len(entries)))
    # Of what is no recording nobody wants the text.
    sounds = zip(*(scans[name].to_pylist() for name in ("recording_id", "num_samples", "sample_rate")), strict=True)
    texts = [
        _Text(parts=(), warnings=entry.label_warnings) if name is None else _text(entry, samples / rate)
        for entry, (name, samples, rate) in zip(entries, sounds, strict=True)
    ]
    given = to_table(texts, _Text)
    columns["parts"] = given["parts"]
    if any(text.warnings for text in texts):
        scanned = scans["warnings"].to_pylist()
        both = [[*(own or []), *more] for own, more in zip(scanned, given["warnings"].to_pylist(), strict=True)]
        columns["warnings"] = pa.array(both, ROWS.field("warnings").type)
    return pa.table({name: columns[name] for name in ROWS.names}, schema=ROWS)


def _text(entry: Entry, seconds: float) -> _Text:
    parts, warnings = given_parts(entry, seconds)
    return _Text(parts=parts, warnings=(*entry.label_warnings, *warnings))


def sessions(rows: pa.Table) -> pa.ChunkedArray:
    """The session of every row: the recording's name where the manifest names none."""
    return pc.coalesce(rows["session"], rows["name"])


def buckets_of(rows: pa.Table, count: int) -> np.ndarray:
    """The bucket of every row, of `count`."""
    if count == 1:
        return np.zeros(rows.num_rows, dtype=np.int64)
    return np.array([bucket_of(session, count) for session in sessions(rows).to_pylist()], dtype=np.int64)


def content_keys(rows: pa.Table) -> pa.Table:
    """What repeats are found by: rows of equal `key` have the same audio, or are unreadable and of one place.

    A row that is refused for what its manifest says repeats nothing, and nothing repeats it; so with what is counted.
    """
    place = pc.if_else(pc.equal(rows["location"], ""), rows["name"], rows["location"])
    key = pc.coalesce(rows["recording_id"], pc.binary_join_element_wise("at", place, ":"))
    alone = pc.binary_join_element_wise("row", pc.cast(rows["order"], pa.string()), ":")
    is_alone = pc.or_(pc.not_equal(rows["refused"], ""), pc.and_not(pc.is_null(rows["recording_id"]), rows["claimed"]))
    key = pc.if_else(is_alone, alone, key)
    return pa.table({"key": key} | {name: rows[name] for name in KEYS.names[1:]}, schema=KEYS)


def partition_of_keys(keys: pa.Table, count: int) -> np.ndarray:
    """A partition, of `count`, for every row; equal keys have the same."""
    names = keys["key"].to_pylist()
    return np.array([zlib.crc32(key.encode("utf-8", "surrogatepass")) % count for key in names], dtype=np.int64)


def find_repeats(keys: pa.Table) -> list[Repeat]:
    """Rows that repeat others. Of one place the first row stays, of the same audio the first name."""
    counts = keys.group_by("key").aggregate([([], "count_all")])
    several = counts.filter(pc.greater(counts["count_all"], 1))["key"]
    found = keys.filter(pc.is_in(keys["key"], value_set=several.combine_chunks())).sort_by("order")
    by_key: dict[str, list[dict[str, object]]] = {}
    for row in found.to_pylist():
        by_key.setdefault(row["key"], []).append(row)
    repeats = []
    for rows in by_key.values():
        firsts: dict[object, dict[str, object]] = {}
        for row in rows:
            first = firsts.setdefault(row["location"], row)
            if first is not row:
                repeats.append(Repeat(order=_int(row["order"]), line=_maybe_int(first["line"]), duplicate_of=None))
        stays = min(firsts.values(), key=lambda row: str(row["name"]))
        if stays["recording_id"] is not None:
            for row in firsts.values():
                if row is not stays:
                    repeats.append(Repeat(order=_int(row["order"]), line=None, duplicate_of=str(stays["name"])))
    return repeats


def _maybe_int(value: object) -> int | None:
    return None if value is None else _int(value)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def plan_bucket(rows: pa.Table, repeats: Mapping[int, Repeat], label: LabelConfig, bucket: int) -> BucketPlan:
    """The plan of a bucket that has these rows, by name.

    Args:
        repeats: by `order`, at least those of these rows.
    """
    windows: list[Window] = []
    recordings: list[Recording] = []
    given: list[GivenRecording] = []
    named: dict[str, str] = {}
    for row in _joined(sorted(from_table(PlanRow, rows), key=lambda row: (row.name, row.order))):
        recordings.append(_named_once(_recording(row, repeats.get(row.order)), row, named))
        if recordings[-1].state == "planned":
            if label.segmented:
                recordings[-1], own = given_windows(recordings[-1], row, label)
                windows += own
            else:
                windows += quiet_windows(row)
            if (row.parts or row.labels is not None) and row.recording_id is not None:
                given.append(GivenRecording(recording_id=row.recording_id, parts=row.parts, labels=row.labels))
    units = group(windows, label.unit_seconds, label_fingerprint(label), bucket)
    return BucketPlan(recordings=tuple(recordings), units=tuple(units), given=tuple(given))


def _joined(rows: Iterable[PlanRow]) -> list[PlanRow]:
    """The rows, in their order, those that have parts of one recording as one."""
    groups: list[list[PlanRow]] = []
    places: dict[tuple[str, str, str | None], list[PlanRow]] = {}
    for row in rows:
        is_part = row.recording_id is not None and not row.refused and any(part.start is not None for part in row.parts)
        own = places.get((row.name, row.location, row.session)) if is_part else None
        if own is None:
            groups.append(own := [])
            if is_part:
                places[row.name, row.location, row.session] = own
        own.append(row)
    return [_as_one(group) if len(group) > 1 else group[0] for group in groups]


def _as_one(rows: Sequence[PlanRow]) -> PlanRow:
    """Rows with parts of one recording as one; what they do not agree on it has not."""
    first = rows[0]
    parts, warnings = clean([part for row in rows for part in row.parts], "segments", keep_untold=True)
    found = [*(warning for row in rows for warning in row.warnings), *warnings]
    return replace(
        first,
        parts=parts,
        speaker=first.speaker if len({row.speaker for row in rows}) == 1 else None,
        language=first.language if len({row.language for row in rows}) == 1 else None,
        warnings=tuple(dict.fromkeys(found)),
    )


def _named_once(recording: Recording, row: PlanRow, named: dict[str, str]) -> Recording:
    """A recording that is to be labelled; one of the name of another one is not.

    Args:
        named: places of the recordings before it, by name.
    """
    if recording.state != "planned" or named.setdefault(row.name, row.location) == row.location:
        return recording
    detail = "another recording of the corpus has this name; give each its own"
    path = f"{row.name} (input {row.order + 1})"
    return replace(recording, path=path, state="unreadable", reason="duplicate_id", detail=detail, recording_id=None)


def _recording(row: PlanRow, repeat: Repeat | None) -> Recording:
    problem = "unknown_language" if row.refused else row.problem
    recording = Recording(
        recording_id=row.recording_id,
        path=row.name,
        session=row.session or row.name,
        state=_state(row, problem),
        stage=StageName.SCAN,
        reason=problem,
        detail=row.refused or row.detail,
        licence=row.licence,
    )
    if repeat is not None and repeat.duplicate_of is None:
        again = f"line {row.line}" if row.line is not None else f"input {row.order + 1}"
        first = f"line {repeat.line}" if repeat.line is not None else "an earlier input"
        return replace(
            recording,
            recording_id=None,
            path=f"{row.name} ({again})",
            state="unreadable",
            reason="duplicate_row",
            detail=f"{again} repeats {first}",
        )
    if row.num_samples is None or row.sample_rate is None:
        return recording
    recording = replace(
        recording,
        duration=row.num_samples / row.sample_rate,
        sample_rate=row.sample_rate,
        channels=row.channels,
        channels_read=_channels_read(row),
        codec=row.codec,
        other_tracks=row.other_tracks,
        warnings=row.warnings,
    )
    if repeat is not None:
        return replace(recording, state="duplicate", reason="same_audio", detail=repeat.duplicate_of or "")
    return recording


def _state(row: PlanRow, problem: str | None) -> RecordingState:
    if problem is None:
        return "planned"
    if is_other(row.claimed, row.problem):
        return "other"
    return "duplicate" if problem == "same_folder" else "unreadable"


def _channels_read(row: PlanRow) -> str:
    if len(row.read) > 1:
        return "split"
    channel = row.read[0].channel
    return "mix" if channel is None else str(channel)
