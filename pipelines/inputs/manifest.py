"""What the user named, as a stream of entries: a folder or prefix, a pattern, a manifest, tars, or a corpus.

A manifest is a table (`corpora.tables`) or a folder of Parquet files. A row has `path` (local, relative to the
manifest, or a URI) with `bytes_offset` and `bytes_size` where the audio lies inside that file, or `audio` with the
bytes or the path in it as Hugging Face's datasets have. Rows with `start` and `end` of one path are one recording and
parts of it. A row that cannot be used is an entry with a problem, so that it ends in the report like every other input.
Nothing here holds more than a piece of the whole; Kaldi's lists of a folder, and lhotse's supervisions, are read whole.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pipelines.inputs.corpora import lhotse, tables
from pipelines.inputs.corpora.kaldi import is_kaldi, kaldi_entries
from pipelines.inputs.corpora.tables import Row
from pipelines.inputs.corpora.tars import members
from pipelines.inputs.entries import Entry, has_suffix, joined
from pipelines.inputs.labels import PATHS, BadLabelError, with_labels
from pipelines.inputs.listing import matches, storable, walk
from pipelines.inputs.media_file import MediaFile
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.core.storage import file_names, is_remote, names_remote, to_path
from voxmill.data.records import GivenPart

Expand = Callable[[Callable[[Entry], list[Entry]], Iterable[Entry]], Iterator[list[Entry]]]
"""Maps a function over tars, in their order; on a cluster by its tasks."""


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
        return _corpus(path) or walk(path)
    name = path.name.lower()
    if path.is_file():
        if name.endswith(tables.SUFFIXES):
            return _manifest(path, path.parent)
        if name.endswith(".tar") or has_suffix(name) or _opens(path):
            shown = str(path) if is_remote(path) else storable(path.name)
            return iter([Entry(path=str(path), name=shown)])
        raise UserError(
            f"{source}: neither a folder, a glob, a table ({', '.join(tables.SUFFIXES)}), a tar, nor a recording"
        )
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


# ---- corpora and manifests


def _corpus(folder: Path) -> Iterator[Entry] | None:
    """Entries of a folder that is a corpus in a format of its own; None for a folder of recordings."""
    if is_kaldi(folder):
        return kaldi_entries(folder)
    names = file_names(folder)
    tars = lhotse.shar_entries(folder, names)
    if tars is not None:
        return iter(tars)
    manifests = lhotse.manifests(folder, names)
    if manifests is not None:
        return lhotse.recording_entries(*manifests)
    for name in ("metadata.csv", "metadata.jsonl"):
        if name in names and tables.lists_recordings(folder / name):
            return _manifest(folder / name, folder)
    if "clips" in names:
        choice = sorted(name for name in names if name.endswith(".tsv") and tables.lists_recordings(folder / name))
        if choice:
            raise UserError(f"{folder}: several tables of recordings; name one of {', '.join(choice)} in it as IN")
    if _holds_tables(names):
        return _table_folder(folder, names)
    # Repositories of Hugging Face have their tables below.
    below = file_names(folder / "data") if "data" in names and (folder / "data").is_dir() else set()
    if not _holds_tables(below):
        return None
    others = (name for name in names if name not in (".git", "data"))
    if any(has_suffix(name) or (folder / name).is_dir() for name in others):
        return None
    return _table_folder(folder / "data", below)


def _holds_tables(names: Iterable[str]) -> bool:
    seen = [name for name in names if name[0] not in "._"]
    return any(name.endswith(".parquet") for name in seen) and not any(has_suffix(name) for name in seen)


def _table_folder(folder: Path, names: Iterable[str]) -> Iterator[Entry]:
    """A dataset of Parquet files: paths in them are relative to the folder."""
    for name in sorted(names):
        if name.endswith(".parquet") and name[0] not in "._":
            yield from _manifest(folder / name, folder)


def _manifest(path: Path, base: Path) -> Iterator[Entry]:
    """Entries of a manifest, neighbouring parts of one recording as one."""
    here = path.name if is_remote(path) else storable(path.name)
    rows = tables.rows(path)
    first_row = next(rows, None)
    if first_row is None:
        return
    rows = itertools.chain([first_row], rows)
    is_lhotse = lhotse.is_cut(first_row[1])
    if lhotse.is_recording(first_row[1]):
        raise UserError(f"{path}: lhotse's recordings alone; name the folder that has them and supervisions as IN")
    entries = lhotse.cut_entries(rows, base, here) if is_lhotse else _manifest_rows(rows, path, base, here)
    for _, group in itertools.groupby(entries, key=_place_of_part):
        first, *others = group
        for other in others:
            first = joined(first, other)
        yield first


def _place_of_part(entry: Entry) -> tuple[object, ...]:
    """The same for parts of one recording, and for no other rows."""
    return (entry.path, entry.bytes_offset, entry.bytes_size, entry.row) if entry.segments else (entry.line,)


def _manifest_rows(rows: Iterable[tuple[int, Row]], path: Path, base: Path, here: str) -> Iterator[Entry]:
    for number, row in rows:
        try:
            entry = _entry(row, path, base, number, here)
            assert isinstance(row, Mapping)
            entry = _with_text(with_labels(entry, row), row, base)
            yield dataclasses.replace(entry, name=f"{entry.name} (line {number})") if entry.refused else entry
        except (_BadRowError, BadLabelError) as error:
            detail = f"line {number}: {error}"
            yield Entry(path="", name=f"{here}:{number}", line=number, problem="malformed_row", detail=detail)


class _BadRowError(Exception):
    """Why a row of a manifest cannot be used."""


def _entry(row: Row, path: Path, base: Path, number: int, here: str) -> Entry:
    if isinstance(row, str):
        raise _BadRowError(row)
    audio = row.get("audio")
    named = next((row[name] for name in PATHS if row.get(name)), None)
    text = named or (audio.get("path") if isinstance(audio, dict) else None)
    if row.get("row") is None and not isinstance(text, str):
        raise _BadRowError("no 'path'")
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
    part = GivenPart(
        text=entry.text or "", start=float(start), end=float(end), speaker=entry.speaker, labels=entry.labels
    )
    return dataclasses.replace(entry, text=None, segments=(part,), labels=None)


def _is_seconds(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
