"""Corrections of clips as a CSV file: the one that a user gives, and OUT/corrections.csv with those in force.

A row has a `clip_id` and what is to stand for what the models found: `text`, `speaker`, `language`, and `drop`, which
is yes for a clip that is to go and no for one whose text is right as it is. An empty cell says nothing. Files are read
as spreadsheets write them (comma, semicolon or tab, with or without a byte-order mark) and written so that no
spreadsheet takes a cell for a formula.
"""

import csv
import difflib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.storage import storage_failure
from voxmill.data.languages import language_code
from voxmill.data.records import ClipId

COLUMNS = ("clip_id", "text", "drop", "speaker", "language")
FILE_NAME = "corrections.csv"
_DELIMITERS = ",;\t"
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What spreadsheets take for the beginning of a formula; a quote before it makes it text."""
_CLIP_ID = re.compile(r"[0-9a-z]+")
_REPLACEMENT = "\ufffd"
_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Characters that nobody sees, which come along when text is copied: directions, and a byte-order mark inside."""

Corrections = Mapping[ClipId, "Correction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What a person says of one clip; None where nothing is said. `drop` False: its text is right as it is."""

    clip_id: ClipId
    text: str | None = None
    drop: bool | None = None
    speaker: str | None = None
    language: str | None = None


def read_corrections(path: Path) -> dict[ClipId, Correction]:
    """The corrections of a file, by clip in order of their names; rows that say nothing are left out.

    Raises:
        UserError: it cannot be read, is not UTF-8, has an unknown column or none of clips, or a cell that is wrong; or
            two rows contradict each other.
    """
    lines = _rows(path, _decoded(path))
    header, columns = next(lines, (0, []))
    names = _column_names(path, columns)
    found: dict[ClipId, Correction] = {}
    line_of: dict[ClipId, int] = {}
    for line, cells in lines:
        where = f"{path}: line {line}"
        if len(cells) > len(names):
            raise UserError(
                f"{where} has {len(cells)} cells and line {header} has {len(names)}; put a text with a comma in quotes"
            )
        # Spreadsheets leave out empty cells at the end of a row.
        own = [(name, _plain(cell)) for name, cell in zip(names, cells, strict=False)]
        if any(cell for name, cell in own if not name):
            raise UserError(f"{where} has a cell below no name of a column")
        row = {name: cell for name, cell in own if name}
        if not any(row.values()):
            continue
        correction = _correction(where, row)
        known = found.get(correction.clip_id)
        if known is not None:
            correction = _joined(path, known, correction, (line_of[known.clip_id], line))
        found[correction.clip_id] = correction
        line_of.setdefault(correction.clip_id, line)
    said = {clip_id: row for clip_id, row in found.items() if row != Correction(clip_id=clip_id)}
    return dict(sorted(said.items()))


def in_force(out: Path) -> dict[ClipId, Correction]:
    """The corrections that a dataset remembers.

    Raises:
        UserError: its file was changed into what `read_corrections` refuses.
    """
    path = out / FILE_NAME
    return read_corrections(path) if path.exists() else {}


def wanted_corrections(out: Path, given: Path | None) -> dict[ClipId, Correction]:
    """Those of the file that is given, which is all of them, or else those that the dataset remembers.

    Raises:
        UserError: as `read_corrections`.
    """
    return in_force(out) if given is None else read_corrections(given)


def remember(out: Path, corrections: Corrections) -> None:
    """Makes these the corrections in force: a file that is the same for the same corrections, none without any."""
    path = out / FILE_NAME
    if not corrections:
        path.unlink(missing_ok=True)
        return
    content = spreadsheet_bytes(csv_text(corrections[clip_id] for clip_id in sorted(corrections)))
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def csv_text(rows: Iterable[Correction]) -> str:
    """Rows as such a file, its header first."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        drop = "" if row.drop is None else _YES[0] if row.drop else _NO[0]
        cells = {"clip_id": row.clip_id, "text": row.text, "drop": drop}
        cells |= {"speaker": row.speaker, "language": row.language}
        writer.writerow([_guarded(cells[name] or "") for name in COLUMNS])
    return target.getvalue()


def spreadsheet_bytes(text: str) -> bytes:
    """UTF-8 with the mark by which spreadsheets know it; without, they damage what is not English."""
    return text.encode("utf-8-sig")


def _guarded(cell: str) -> str:
    return f"'{cell}" if cell.lstrip("'").startswith(_FORMULA) else cell


def _plain(cell: str) -> str:
    """A cell in one line, without marks of direction and without the quote that `_guarded` puts before it."""
    cell = " ".join("".join(char for char in cell if char not in _MARKS).split())
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        wrong = UserError(f"{path}: cannot be read ({error.strerror or 'no such file'}); name a CSV file")
        raise storage_failure(error) or wrong from None
    try:
        # Two marks, where a program has put its own before one that it did not know.
        return content.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line} is not UTF-8; save the file as `CSV UTF-8`") from None


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold anything with the number of their first line; the first one is the header."""
    first = text.lstrip().splitlines()[:2]
    told = re.fullmatch(r'"?sep=(.)"?', first[0].strip()) if first else None
    delimiter = told[1] if told else _delimiter(first[0]) if first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            # A line that names the delimiter, as Excel reads it, is no row.
            is_row = any(cell.strip() for cell in cells) and not (told and "".join(cells).startswith("sep="))
            if is_row:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}: line {line} is no CSV ({error}); close its quotes, or double those inside") from None


def _delimiter(header: str) -> str:
    """The one by which the header has most columns that are known."""
    known = {mark: sum(_name(cell) in COLUMNS for cell in header.split(mark)) for mark in _DELIMITERS}
    return max(known, key=lambda mark: known[mark])


def _name(cell: str) -> str:
    return cell.strip().strip('"').strip().lower()


def _column_names(path: Path, cells: Sequence[str]) -> list[str]:
    """Names of the columns; "" for one without a name, which must be empty."""
    names = [_name(cell) for cell in cells]
    for name in names:
        if name and name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known columns: {', '.join(COLUMNS)}"
            raise UserError(f"{path}: unknown column {name[:60]!r}; {hint}")
        if name and names.count(name) > 1:
            raise UserError(f"{path}: two columns are called {name!r}; keep one")
    if "clip_id" not in names:
        raise UserError(f"{path}: no column is called clip_id; begin the file with a line such as {','.join(COLUMNS)}")
    if not set(names) - {"clip_id", ""}:
        raise UserError(f"{path}: says nothing of clips; add a column such as {', '.join(COLUMNS[1:])}")
    return names


def _correction(where: str, row: Mapping[str, str]) -> Correction:
    clip_id = row.get("clip_id", "")
    if not clip_id:
        raise UserError(f"{where} has no clip_id; copy it from the report or the index")
    if not _CLIP_ID.fullmatch(clip_id):
        raise UserError(f"{where}: {clip_id[:60]!r} is no clip_id; these are of the letters a to z and digits alone")
    for name, cell in row.items():
        wrong = wrong_text(cell) if name == "text" and cell else _wrong_character(cell)
        if wrong:
            raise UserError(f"{where}: {name} {wrong}")
    text = row.get("text", "")
    return Correction(
        clip_id=clip_id,
        text=text or None,
        drop=_answer(where, row.get("drop", "")),
        speaker=row.get("speaker") or None,
        language=_language(where, row.get("language", "")),
    )


def wrong_text(text: str) -> str:
    """What is wrong with a text that a row has in one line, in words; "" where nothing is."""
    if not any(char.isalnum() for char in text):
        return f"= {text[:60]!r} has no words; to drop the clip, write yes below drop"
    return _wrong_character(text)


def _wrong_character(cell: str) -> str:
    is_wrong = _REPLACEMENT in cell or any(unicodedata.category(char) == "Cc" for char in cell)
    return "has a character that is none; write the cell again" if is_wrong else ""


def _answer(where: str, cell: str) -> bool | None:
    if not cell:
        return None
    if cell.lower() not in (*_YES, *_NO):
        raise UserError(f"{where}: drop = {cell[:60]!r}; write yes, no or nothing")
    return cell.lower() in _YES


def _language(where: str, cell: str) -> str | None:
    if not cell:
        return None
    try:
        code = language_code(cell)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if code is None:
        raise UserError(f"{where}: language = {cell[:60]!r} is not one language; write its code, such as en")
    return code


def _joined(path: Path, one: Correction, other: Correction, lines: tuple[int, int]) -> Correction:
    """What two rows say of one clip together."""
    values: dict[str, str | bool | None] = {}
    for field in fields(Correction):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if first is not None and second is not None and first != second:
            raise UserError(
                f"{path}: lines {lines[0]} and {lines[1]} contradict each other on the {field.name} of {one.clip_id}; "
                "keep one of them"
            )
        values[field.name] = second if first is None else first
    return Correction(**values)  # type: ignore[arg-type]
