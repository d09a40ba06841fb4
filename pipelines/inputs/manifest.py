"""What the user named, as a list of entries: a folder, a glob, or a JSONL or Parquet manifest.

A row that cannot be used is an entry with a problem, so that it ends in the report like every other input.
"""

import dataclasses
import glob
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxmill.core.errors import UserError

SUFFIXES = frozenset(
    [
        ".wav",
        ".flac",
        ".mp3",
        ".ogg",
        ".oga",
        ".opus",
        ".m4a",
        ".mp4",
        ".aac",
        ".g722",
        ".webm",
        ".wma",
        ".aiff",
        ".aif",
    ]
)
OPTIONAL = ("session", "speaker", "text", "language", "licence")


@dataclass(frozen=True)
class Entry:
    """One input. `name` is its path as shown and sorted by; `problem` (reason, detail) ends it before reading."""

    path: str
    name: str
    session: str | None = None
    speaker: str | None = None
    text: str | None = None
    language: str | None = None
    licence: str | None = None
    line: int | None = None
    problem: tuple[str, str] | None = None


def read_inputs(source: str) -> list[Entry]:
    """Entries of a folder, glob or manifest, in a stable order, names unique.

    Raises:
        UserError: `source` does not exist, matches nothing or holds no recording.
    """
    path = Path(source)
    if path.is_dir():
        entries = sorted(_walk(path), key=lambda e: e.name)
    elif path.is_file() and path.suffix in (".jsonl", ".parquet"):
        entries = list(_manifest(path))
    elif path.is_file() and path.suffix.lower() in SUFFIXES:
        entries = [Entry(str(path), _text(path.name))]
    elif path.is_file():
        raise UserError(f"{source}: neither a folder, a glob, a .jsonl or .parquet manifest, nor a recording")
    else:
        matches = sorted(p for p in glob.glob(source, recursive=True) if Path(p).suffix.lower() in SUFFIXES)
        if not matches:
            raise UserError(f"{source}: no such file or folder, and as a pattern it matches no recording")
        entries = [Entry(match, _text(match)) for match in matches]
    if not entries:
        raise UserError(f"{source}: holds no recording ({', '.join(sorted(SUFFIXES))})")
    return _unique(entries)


def _text(name: str) -> str:
    """A file name that can be stored as UTF-8, undecodable bytes as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk(root: Path) -> Iterator[Entry]:
    unreadable: list[OSError] = []
    for folder, subfolders, files in os.walk(root, onerror=unreadable.append):
        subfolders.sort()
        for file in files:
            path = os.path.join(folder, file)
            if Path(file).suffix.lower() in SUFFIXES:
                name = _text(os.path.relpath(path, root))
                problem = None
                if os.path.islink(path) and not os.path.exists(path):
                    problem = ("missing", "a link that leads nowhere or in a circle")
                yield Entry(path, name, problem=problem)
    for error in unreadable:
        name = _text(os.path.relpath(error.filename, root))
        yield Entry(error.filename, name + "/", problem=("no_permission", f"folder: {error.strerror}"))


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, row) of a manifest; a row that is not an object is a string with the reason."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            yield from enumerate(pq.read_table(path).to_pylist(), 1)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except ValueError as error:
                yield number, f"not JSON ({error})"


def _manifest(path: Path) -> Iterator[Entry]:
    first: dict[str, int] = {}
    for number, row in _rows(path):
        if isinstance(row, dict) and not isinstance(row.get("path"), str):
            row = "no 'path'"
        elif isinstance(row, dict):
            odd = [key for key in OPTIONAL if not isinstance(row.get(key), str | None)]
            row = f"{odd[0]!r} is not text" if odd else row
        elif not isinstance(row, str):
            row = "not an object"
        if isinstance(row, str):
            name = f"{path.name}:{number}"
            yield Entry("", name, line=number, problem=("malformed_row", f"line {number}: {row}"))
            continue
        fields = {key: row.get(key) or None for key in OPTIONAL}
        file = os.path.join(path.parent, row["path"])
        real = os.path.realpath(file)
        problem = None
        if real in first:
            problem = ("duplicate_row", f"line {number} repeats line {first[real]}")
        elif not os.path.exists(file):
            problem = ("missing", f"line {number}: no such file")
        first.setdefault(real, number)
        yield Entry(file, row["path"], line=number, problem=problem, **fields)


def _unique(entries: list[Entry]) -> list[Entry]:
    """Names made unique by the manifest's line, so that every input has a row of its own."""
    seen: set[str] = set()
    result = []
    for entry in entries:
        if entry.name in seen:
            entry = dataclasses.replace(entry, name=f"{entry.name} (line {entry.line})")
        seen.add(entry.name)
        result.append(entry)
    return result
