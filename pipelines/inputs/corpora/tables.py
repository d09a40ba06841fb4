"""Rows of the tables that list a corpus: JSONL (also as `.gz`), Parquet, and text with commas, tabs or bars.

Text is read as the corpora write it: TSV, such as Common Voice's, and LJSpeech's `metadata.csv` without quotes, CSV
with them. Audio inside a Parquet file is not read.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pipelines.inputs.entries import has_suffix
from pipelines.inputs.labels import PATHS
from voxmill.core.errors import UserError

Quoting = Literal[0, 3]
"""csv.QUOTE_MINIMAL, csv.QUOTE_NONE."""
Row = Mapping[str, Any] | str
"""A row; one that cannot be used is the reason."""
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".tsv")
ROWS_A_BATCH = 1024
CELL_CHARACTERS = 10_000_000
HEAD_BYTES = 65_536
LJSPEECH = ("id", "text", "normalized_text")
"""Columns of LJSpeech's `metadata.csv`, which has no header; the last one may be missing."""
_NUMBERED_NAME = re.compile(r"(.+)[-_ ]\d+")
_NUMBERS = {"start": float, "end": float, "bytes_offset": int, "bytes_size": int}


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number from 1, row) of a table.

    Raises:
        UserError: it is no such table, or has no column that names recordings.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_rows(path)
    return _text_rows(path) if name.endswith((".csv", ".tsv")) else _json_rows(path)


def lists_recordings(path: Path) -> bool:
    """Whether a JSONL, CSV or TSV file in a folder names recordings, by its first line, or as LJSpeech has it."""
    if path.name.lower().endswith((".csv", ".tsv")):
        with path.open("rb") as file:
            first = file.read(HEAD_BYTES).decode("utf-8-sig", "replace").partition("\n")[0].rstrip("\r")
        if _is_header(next(csv.reader([first], delimiter=_separator(path, first)), [])):
            return True
        return "|" in first and (path.parent / "wavs").is_dir()
    row = next(_json_rows(path), (0, ""))[1]
    return isinstance(row, Mapping) and _is_header([*row])


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        with path.open("rb") as file, gzip.open(file) if path.name.lower().endswith(".gz") else file as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    row = f"not JSON ({error})"
                yield number, row if isinstance(row, dict | str) else "not an object"
    except (gzip.BadGzipFile, EOFError) as error:
        yield number + 1, f"damaged gzip ({error}); what comes after is lost"


# ---- text with separators


def _text_rows(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(CELL_CHARACTERS)
    with path.open("rb") as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        file.seek(0)
        lines = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
        first = lines.readline()
        separator = _separator(path, first)
        quoting: Quoting = csv.QUOTE_MINIMAL if separator in ",;" else csv.QUOTE_NONE
        names = next(csv.reader([first], delimiter=separator, quoting=quoting), [])
        if _is_header(names):
            yield from _with_header(path, lines, names, separator, quoting)
        elif separator == "|":
            lines.seek(0)
            yield from _ljspeech(path, lines)
        else:
            shown = ", ".join(repr(name) for name in names[:8]) or "nothing"
            raise UserError(
                f"{path}: its first line names no column 'path' but {shown}; name the column of files 'path'"
            )


def _separator(path: Path, first: str) -> str:
    if path.name.lower().endswith(".tsv"):
        return "\t"
    return next((one for one in "|\t;" if one in first and not _is_header(first.strip().split(","))), ",")


def _is_header(names: Collection[str]) -> bool:
    return any(name in names for name in PATHS)


def _with_header(
    path: Path, lines: io.TextIOWrapper, names: Sequence[str], separator: str, quoting: Quoting
) -> Iterator[tuple[int, Row]]:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: its first line names {twice!r} twice; rename one of the columns")
    # Common Voice's tables lie beside the folder of its recordings.
    clips = "client_id" in names and (path.parent / "clips").is_dir()
    for number, cells in _cells(lines, separator, quoting):
        if isinstance(cells, str) or len(cells) != len(names):
            yield (
                number,
                cells if isinstance(cells, str) else f"{len(cells)} columns where the first line has {len(names)}",
            )
            continue
        row = {name: _cell(name, value) for name, value in zip(names, cells, strict=True) if value != ""}
        if clips and "/" not in str(row.get("path", "/")):
            row["path"] = f"clips/{row['path']}"
        yield number, row


def _ljspeech(path: Path, lines: io.TextIOWrapper) -> Iterator[tuple[int, Row]]:
    """Rows of a table as LJSpeech has it: recordings lie in `wavs`, by their names without `.wav`.

    Such a corpus has one reader, who is called as its folder, and reads what has one name up to a number (`LJ001-0001`)
    in one session.
    """
    reader = path.parent.name
    for number, cells in _cells(lines, "|", csv.QUOTE_NONE, first=1):
        if isinstance(cells, str) or len(cells) not in (2, 3):
            yield number, cells if isinstance(cells, str) else f"{len(cells)} columns where LJSpeech has 2 or 3"
            continue
        row = dict(zip(LJSPEECH, (cell.strip() for cell in cells), strict=False))
        name = row["id"] if has_suffix(row["id"]) else f"{row['id']}.wav"
        own = {"speaker": reader, "session": _session(PurePosixPath(name).stem) or reader} if reader else {}
        yield number, row | own | {"path": name if "/" in name else f"wavs/{name}"}


def _session(name: str) -> str:
    """What is before the number of a recording; "" where there is none."""
    found = _NUMBERED_NAME.fullmatch(name)
    return found[1] if found else ""


def _cells(
    lines: io.TextIOWrapper, separator: str, quoting: Quoting, first: int = 2
) -> Iterator[tuple[int, list[str] | str]]:
    """(line number, cells) of the rest of a file, or why a row has none; `first`: number of its first line."""
    reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num + first - 1, f"not readable ({error})"
            continue
        if not cells:
            continue
        number = reader.line_num + first - 1
        if any(not cell.isascii() and any("\udc80" <= char <= "\udcff" for char in cell) for cell in cells):
            yield number, "not UTF-8"
        else:
            yield number, cells


def _cell(name: str, value: str) -> object:
    if name not in _NUMBERS:
        return value
    try:
        return _NUMBERS[name](value)
    except ValueError:
        return value


# ---- Parquet


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file)
            schema = table.schema_arrow
            fields = [field for field in schema if not field.name.startswith("__index_level_")]
            names = [field.name for field in fields if field.name != "audio" and not _holds_bytes(field.type)]
            classes = _classes(schema)
            audio = schema.field("audio").type if "audio" in schema.names else None
            holds_audio = audio is not None and (_is_bytes(audio) or _has_field(audio, "bytes"))
            if audio is not None and _has_field(audio, "path"):
                names.append("audio.path")
            if not names and not holds_audio:
                names = schema.names[:1]
            for batch in table.iter_batches(batch_size=ROWS_A_BATCH, columns=names):
                for row in batch.to_pylist() if names else [{} for _ in range(batch.num_rows)]:
                    if holds_audio:
                        row["row"] = number
                    for name, of_class in classes.items():
                        row[name] = of_class.get(row.get(name), row.get(name))
                    number += 1
                    yield number, row
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


def _classes(schema: Any) -> dict[str, dict[object, str]]:
    """Names of the classes that Hugging Face's datasets store as numbers, by column."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        named = {name: feature.get("names") for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: dict(enumerate(names)) for name, names in named.items() if isinstance(names, list)}


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_field(kind: Any, name: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and kind.get_field_index(name) >= 0)


def _holds_bytes(kind: Any) -> bool:
    """Whether a column is of bytes, or has bytes in it, as pictures and sounds are stored."""
    return _is_bytes(kind) or any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
