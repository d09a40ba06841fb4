"""What rows and sidecars of corpora say of a recording: columns by the names that these have there, the rest as is."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from annotation.voice.given_labels import known_label
from pipelines.inputs.entries import Entry
from voxmill.core.errors import UserError
from voxmill.data.languages import dialect_code, is_standard_chinese, language_code
from voxmill.data.records import GivenLabels, RecordingWarning, WarningKind

COLUMNS: dict[str, tuple[str, ...]] = {
    "session": ("session",),
    "speaker": ("speaker", "speaker_id", "client_id", "spk_id"),
    "text": ("text", "sentence", "transcription", "transcript"),
    "language": ("language", "locale", "lang"),
    "licence": ("licence", "license"),
    "gender": ("gender", "sex"),
    "age": ("age",),
    "emotion": ("emotion",),
    "accent": ("accent", "accents"),
    "dialect": ("dialect", "subdialect"),
    "style": ("style", "speaking_style"),
    "caption": ("caption", "text_description"),
}
"""What is known of a recording, and what corpora call it; the first name that has a value counts, others are extra."""
CLIENT = "client_id"
"""Common Voice's name of a speaker, whose recordings, one by one, are one session where there is no other."""
PATHS = ("path", "file_name", "audio_filepath")
"""What corpora call the file of a recording."""
PLACES = (*PATHS, "audio", "bytes_offset", "bytes_size", "row", "text_path", "start", "end")
"""Columns that say where a recording, a part of it or its text is."""
_NUMBERED = ("session", "speaker", "gender", "age", "emotion", "accent", "dialect", "style")
"""What may be a number in a table."""
_OF_VOICE = ("gender", "age", "emotion", "accent", "dialect", "style", "caption")
MAX_EXTRA = 20_000
"""Characters of the columns that mean nothing to voxmill, as JSON."""


class BadLabelError(Exception):
    """Why labels cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLabels:
    """What a row or sidecar says of a recording; empty text is none.

    too_long: columns that were left out of `labels.extra`.
    """

    session: str | None = None
    speaker: str | None = None
    text: str | None = None
    language: str | None = None
    licence: str | None = None
    labels: GivenLabels | None = None
    too_long: tuple[str, ...] = ()


def read_labels(row: Mapping[str, object]) -> RowLabels:
    """The labels in a row.

    Raises:
        BadLabelError: a value is no text.
    """
    values: dict[str, str | None] = {}
    used: set[str] = set()
    names_of: dict[str, str | None] = {}
    for known, names in COLUMNS.items():
        name = next((name for name in names if row.get(name) not in (None, "")), None)
        names_of[known] = name
        values[known] = None if name is None else _text(name, row[name], known in _NUMBERED)
        used |= {name} if name is not None else set()
    if names_of["speaker"] == CLIENT:
        values["session"] = values["session"] or values["speaker"]
    rest = {name: row[name] for name in row if name not in used and name not in PLACES}
    extra, too_long = _extra(rest)
    own = {known: values.pop(known) for known in _OF_VOICE}
    labels = GivenLabels(**own, extra=extra)
    return RowLabels(**values, labels=None if labels == GivenLabels() else labels, too_long=too_long)


def with_labels(entry: Entry, row: Mapping[str, object]) -> Entry:
    """An entry with what a row or sidecar says of it.

    The language becomes our code of it; with a value that is no language the entry is refused. Chinese in a dialect
    that has a code has the dialect's; another dialect is a warning.

    Raises:
        BadLabelError: a value is no text.
    """
    found = read_labels(row)
    entry = replace(
        entry,
        session=found.session or entry.session,
        speaker=found.speaker or entry.speaker,
        text=found.text or entry.text,
        licence=found.licence or entry.licence,
        labels=found.labels or entry.labels,
    )
    if found.too_long:
        detail = f"too long to keep: {', '.join(found.too_long)}"
        entry = with_warning(entry, detail)
    dialect = None if found.labels is None else known_label(found.labels.dialect)
    try:
        language = None if found.language is None else language_code(found.language)
    except UserError as error:
        where = "" if entry.line is None else f"line {entry.line}: "
        return replace(entry, refused=f"{where}language {error}")
    if language is not None:
        entry = replace(entry, language=language)
    if dialect is None or entry.language not in (None, "zh"):
        return entry
    code = dialect_code(dialect)
    if code is not None:
        return replace(entry, language=code)
    if entry.language == "zh" and not is_standard_chinese(dialect):
        entry = with_warning(entry, f"{dialect[:60]!r} is none that has a tag", kind="dialect_unknown")
    return entry


def with_warning(entry: Entry, detail: str, *, kind: WarningKind = "labels_unreadable") -> Entry:
    """An entry whose labels are not all kept or understood."""
    warning = RecordingWarning(kind=kind, detail=detail)
    return replace(entry, label_warnings=(*entry.label_warnings, warning))


def _text(name: str, value: object, may_be_number: bool) -> str:
    if isinstance(value, str):
        return storable_text(value)
    if may_be_number and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    raise BadLabelError(f"{name!r} is not text")


def storable_text(text: str) -> str:
    """Text that can be stored as UTF-8, halves of characters as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _extra(rest: Mapping[str, object]) -> tuple[str | None, tuple[str, ...]]:
    """The rest of a row as a JSON object, and columns that are too long for it, the longest first."""
    plain = {name: value for name, given in sorted(rest.items()) if (value := _plain(given)) not in (None, "")}
    text = _json(plain)
    too_long = []
    while len(text) > MAX_EXTRA:
        longest = max(plain, key=lambda name: len(_json(plain[name])))
        too_long.append(storable_text(longest))
        del plain[longest]
        text = _json(plain)
    return (text if plain else None), tuple(too_long)


def _json(value: object) -> str:
    return storable_text(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")))


def _plain(value: object) -> object:
    """A value as JSON has it: bytes are left out, dates and the like become text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
