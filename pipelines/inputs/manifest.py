"""What the user named, as a stream of entries: a folder or prefix, a pattern, a manifest, or tars of recordings.

A manifest is JSONL, a Parquet file or a folder of Parquet files. A row has `path` (local, relative to the manifest, or
a URI) with `bytes_offset` and `bytes_size` where the audio lies inside that file, or `audio` with the bytes or the path
in it as Hugging Face's datasets have. Rows with `start`, `end` and `text` of one path, one after another, are one
recording and parts of its text. A row that cannot be used is an entry with a problem, so that it ends in the report
like every other input. Nothing here holds more than a piece of the whole; Kaldi's lists of a folder are read whole.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pipelines.inputs.entries import OPTIONAL, SEGMENT, Entry, has_suffix, with_labels
from pipelines.inputs.kaldi import is_kaldi, kaldi_entries
from pipelines.inputs.listing import matches, storable, walk
from pipelines.inputs.media_file import MediaFile
from pipelines.inputs.tars import members
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.core.storage import file_names, is_remote, names_remote, to_path
from voxmill.data.records import GivenPart

Expand = Callable[[Callable[[Entry], list[Entry]], Iterable[Entry]], Iterator[list[Entry]]]
"""Maps a function over tars, in their order; on a cluster by its tasks."""
ROWS_A_BATCH = 1024


def read_inputs(source: str, expand: Expand = map) -> Iterator[Entry]:
    """Entries of IN in a stable order.

    Raises:
        UserError: `source` does not exist, matches nothing or holds no file.
    """
    entries = _expanded(_entries(source), expand)
    first = next(entries, None)
    if first is None:
        raise UserError(f"{source}: holds no file")
    return itertools.chain([first], entries)


def _entries(source: str) -> Iterator[Entry]:
    if "{" in source and not _exists(source):
        return _braces(source)
    path = to_path(source)
    if path.is_dir():
        if is_kaldi(path):
            return kaldi_entries(path)
        return _table_folder(path) if _holds_tables(path) else walk(path)
    name = path.name.lower()
    if path.is_file():
        if name.endswith((".jsonl", ".parquet")):
            return _manifest(path, path.parent)
        if name.endswith(".tar") or has_suffix(name) or _opens(path):
            shown = str(path) if is_remote(path) else storable(path.name)
            return iter([Entry(path=str(path), name=shown)])
        raise UserError(f"{source}: neither a folder, a glob, a .jsonl or .parquet manifest, a tar, nor a recording")
    found = matches(source)
    first = next(found, None) if any(mark in source for mark in "*?[") else None
    if first is None:
        raise UserError(f"{source}: no such file or folder, and as a pattern it matches no file")
    return itertools.chain([first], found)


def _opens(path: Path) -> bool:
    from pipelines.inputs.container import open_recording

    try:
        open_recording(MediaFile(path=str(path), name=path.name)).close()
    except AudioProblem:
        return False
    return True


def _exists(source: str) -> bool:
    return to_path(source).exists()


def _braces(source: str) -> Iterator[Entry]:
    """Files that a pattern such as `s3://b/{000..009}.tar` names, listed or not."""
    from braceexpand import braceexpand

    to_path(source)
    try:
        names = braceexpand(source)
        for name in names:
            if not name.endswith(".tar") and not has_suffix(name):
                raise UserError(f"{name}: neither a tar nor a recording; braces name either")
            yield Entry(path=name, name=storable(name))
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None


def _expanded(entries: Iterator[Entry], expand: Expand) -> Iterator[Entry]:
    """Entries with every tar replaced by the recordings in it."""
    for is_tar, group in itertools.groupby(entries, lambda entry: entry.path.endswith(".tar") and _is_whole(entry)):
        if is_tar:
            for inner in expand(members, group):
                yield from inner
        else:
            yield from group


def _is_whole(entry: Entry) -> bool:
    return entry.bytes_size is None and entry.problem is None


# ---- manifests


def _holds_tables(folder: Path) -> bool:
    names = [name for name in file_names(folder) if name[0] not in "._"]
    return any(name.endswith(".parquet") for name in names) and not any(has_suffix(name) for name in names)


def _table_folder(folder: Path) -> Iterator[Entry]:
    """A dataset of Parquet files: paths in them are relative to the folder."""
    for name in sorted(file_names(folder)):
        if name.endswith(".parquet") and name[0] not in "._":
            yield from _manifest(folder / name, folder)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """(line number from 1, row) of a manifest; a row that is not an object is a string with the reason."""
    if path.name.lower().endswith(".parquet"):
        yield from _parquet_rows(path)
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                row = f"not JSON ({error})"
            yield number, row if isinstance(row, dict | str) else "not an object"


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = ["path", "bytes_offset", "bytes_size", "text_path", *SEGMENT, *OPTIONAL]
    number = 0
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file)
            names = [name for name in wanted if name in table.schema_arrow.names]
            audio = table.schema_arrow.field("audio").type if "audio" in table.schema_arrow.names else None
            holds_bytes = audio is not None and (_is_bytes(audio) or _has_field(audio, "bytes"))
            if audio is not None and _has_field(audio, "path"):
                names.append("audio.path")
            if not names and not holds_bytes:
                names = table.schema_arrow.names[:1]
            for batch in table.iter_batches(batch_size=ROWS_A_BATCH, columns=names):
                for row in batch.to_pylist() if names else [{} for _ in range(batch.num_rows)]:
                    if holds_bytes:
                        row["row"] = number
                    number += 1
                    yield number, row
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_field(kind: Any, name: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and kind.get_field_index(name) >= 0)


def _manifest(path: Path, base: Path) -> Iterator[Entry]:
    """Entries of a manifest, parts of one recording as one."""
    for _, group in itertools.groupby(_manifest_rows(path, base), key=_place_of_part):
        first, *others = group
        parts = tuple(part for entry in (first, *others) for part in entry.segments)
        yield dataclasses.replace(first, segments=parts) if others else first


def _place_of_part(entry: Entry) -> tuple[object, ...]:
    """The same for parts of one recording, and for no other rows."""
    return (entry.path, entry.bytes_offset, entry.bytes_size, entry.row) if entry.segments else (entry.line,)


def _manifest_rows(path: Path, base: Path) -> Iterator[Entry]:
    here = path.name if is_remote(path) else storable(path.name)
    for number, row in _rows(path):
        try:
            entry = _entry(row, path, base, number, here)
            if isinstance(row, dict):
                entry = _with_text(with_labels(entry, row), row, base)
            yield dataclasses.replace(entry, name=f"{entry.name} (line {number})") if entry.refused else entry
        except _BadRowError as error:
            detail = f"line {number}: {error}"
            yield Entry(path="", name=f"{here}:{number}", line=number, problem="malformed_row", detail=detail)


class _BadRowError(Exception):
    """Why a row of a manifest cannot be used."""


def _entry(row: Mapping[str, Any] | str, path: Path, base: Path, number: int, here: str) -> Entry:
    if isinstance(row, str):
        raise _BadRowError(row)
    audio = row.get("audio")
    text = row.get("path") or (audio.get("path") if isinstance(audio, dict) else None)
    odd = [key for key in OPTIONAL if not isinstance(row.get(key), str | None)]
    if row.get("row") is None and not isinstance(text, str):
        raise _BadRowError("no 'path'")
    if odd:
        raise _BadRowError(f"{odd[0]!r} is not text")
    if row.get("row") is not None:
        # The bytes are in the table itself; a path beside them only names them.
        name = f"{text or 'row'} ({here}:{number})"
        return Entry(path=str(path), name=name, row=row["row"], line=number)
    assert isinstance(text, str)
    offset, size = row.get("bytes_offset"), row.get("bytes_size")
    if not _is_count(offset) or not _is_count(size):
        raise _BadRowError(f"{'bytes_size' if _is_count(offset) else 'bytes_offset'!r} is not a number of bytes")
    if offset is not None and size is None:
        raise _BadRowError("'bytes_offset' without 'bytes_size'")
    try:
        is_uri = names_remote(text)
    except UserError as error:
        raise _BadRowError(str(error)) from None
    if is_uri:
        place = text
    else:
        local = text.removeprefix("file://")
        place = f"{base}/{text}" if is_remote(base) and local == text else os.path.join(base, local)
    name = text if size is None else f"{text}@{offset or 0}"
    return Entry(path=place, name=name, bytes_offset=offset, bytes_size=size, line=number)


def _with_text(entry: Entry, row: Mapping[str, Any], base: Path) -> Entry:
    """The entry with the file that has its text, or with the text as that of a part of it."""
    text_path, start, end = row.get("text_path"), row.get("start"), row.get("end")
    if not isinstance(text_path, str | None):
        raise _BadRowError("'text_path' is not text")
    if text_path and "://" not in text_path:
        text_path = f"{base}/{text_path}" if is_remote(base) else os.path.abspath(os.path.join(base, text_path))
    entry = dataclasses.replace(entry, text_path=text_path or None)
    if start is None and end is None:
        return entry
    if not _is_seconds(start) or not _is_seconds(end):
        raise _BadRowError("'start' and 'end' are not both numbers of seconds")
    if entry.text is None:
        raise _BadRowError("'start' and 'end' without 'text'")
    part = GivenPart(text=entry.text, start=float(start), end=float(end))
    return dataclasses.replace(entry, text=None, segments=(part,))


def _is_seconds(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
