"""Lhotse's manifests: cuts, recordings with supervisions, and Shar. A cut, or each of its supervisions, is a clip.

Cuts are read as a stream, wherever those of one recording lie in it. Supervisions of a folder that has recordings are
read whole, as Kaldi's lists are.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.inputs.corpora.tables import Row, rows
from pipelines.inputs.entries import Entry, differing
from pipelines.inputs.labels import BadLabelError, read_labels, with_labels
from voxmill.core.errors import UserError
from voxmill.core.storage import is_remote, names_remote
from voxmill.data.languages import language_code
from voxmill.data.records import GivenPart

RECORDINGS, SUPERVISIONS = "recordings.jsonl", "supervisions.jsonl"
CUTS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")
_OF_SUPERVISION = ("id", "recording_id", "start", "duration", "channel", "custom", "alignment")
DIGITS = 6
"""Of seconds: sums of what lhotse rounds differ behind them."""


class _BadCutError(Exception):
    """Why a line of a manifest cannot be used."""


def is_cut(row: Row) -> bool:
    """Whether a row is one of lhotse's cuts."""
    return isinstance(row, Mapping) and (row.get("type") in CUTS or {"supervisions", "duration"} <= row.keys())


def is_recording(row: Row) -> bool:
    """Whether a row, or what lies beside a recording in Shar, is one of lhotse's recordings."""
    return isinstance(row, Mapping) and {"sources", "sampling_rate"} <= row.keys()


def manifests(folder: Path, names: Collection[str]) -> tuple[Path, Path] | None:
    """Recordings and supervisions of a folder of files that has both."""
    found = [
        next((folder / name for name in (kind, f"{kind}.gz") if name in names), None)
        for kind in (RECORDINGS, SUPERVISIONS)
    ]
    return (found[0], found[1]) if found[0] is not None and found[1] is not None else None


def shar_entries(folder: Path, names: Collection[str]) -> list[Entry] | None:
    """The tars of a Shar folder of files, each with its cuts; None for any other folder.

    Raises:
        UserError: some recordings have no cuts, or some cuts no recordings.
    """
    parts = {kind: {_number(name, kind) for name in names} - {""} for kind in ("cuts", "recording")}
    if not parts["cuts"] or not parts["recording"]:
        return None
    alone = sorted(parts["cuts"] ^ parts["recording"])
    if alone:
        have, lack = ("cuts", "recording") if alone[0] in parts["cuts"] else ("recording", "cuts")
        raise UserError(f"{folder}: part {alone[0]} of Shar has {have} and no {lack}; fetch the missing file")
    made = []
    for number in sorted(parts["cuts"]):
        tar = f"recording.{number}.tar"
        cuts = next(name for name in names if _number(name, "cuts") == number)
        made.append(Entry(path=str(folder / tar), name=tar, text_path=str(folder / cuts)))
    return made


def _number(name: str, kind: str) -> str:
    """The number of a part of Shar; "" for another file."""
    suffixes = (".tar",) if kind == "recording" else (".jsonl", ".jsonl.gz")
    middle = name.removeprefix(f"{kind}.")
    suffix = next((one for one in suffixes if middle.endswith(one)), None)
    number = "" if suffix is None or middle == name else middle.removesuffix(suffix)
    return number if number.isdigit() else ""


def cut_entries(lines: Iterable[tuple[int, Row]], base: Path, here: str) -> Iterator[Entry]:
    """An entry a cut, its parts in seconds of the recording.

    Args:
        base: the manifest's folder. here: its name.
    """
    for number, row in lines:
        try:
            yield _cut_entry(row, base, number)
        except (_BadCutError, BadLabelError) as error:
            yield _bad(here, number, error)


def recording_entries(recordings: Path, supervisions: Path) -> Iterator[Entry]:
    """Recordings in their order, with their supervisions."""
    base, here = recordings.parent, recordings.name
    own: dict[object, list[Mapping[str, Any]]] = {}
    for number, row in rows(supervisions):
        try:
            own.setdefault(_text(row, "recording_id"), []).append(_checked(row))
        except _BadCutError as error:
            yield _bad(supervisions.name, number, error)
    for number, row in rows(recordings):
        try:
            name = _text(row, "id")
            entry, mine = _recording_entry(_checked(row), base, number), own.pop(name, [])
            yield _with_parts(entry, [_part(one, 0.0) for one in mine], mine)
        except (_BadCutError, BadLabelError) as error:
            yield _bad(here, number, error)
    for missing in own:
        detail = f"{here} has no recording of this id, though {supervisions.name} has supervisions of it"
        yield Entry(path="", name=str(missing), problem="missing", detail=detail)


def labelled(entry: Entry, cut: Mapping[str, Any]) -> Entry:
    """A recording of Shar with what its cut says of it.

    Raises:
        BadLabelError: a label is no text.
    """
    try:
        return _with_parts(entry, list(_parts(cut, 0.0)), cut.get("supervisions") or [])
    except _BadCutError as error:
        raise BadLabelError(str(error)) from None


def _bad(here: str, number: int, error: Exception) -> Entry:
    detail = f"line {number}: {error}"
    return Entry(path="", name=f"{here}:{number}", line=number, problem="malformed_row", detail=detail)


def _cut_entry(row: Row, base: Path, number: int) -> Entry:
    cut = _checked(row)
    if cut.get("type", "MonoCut") not in ("MonoCut", "MultiCut"):
        raise _BadCutError(f"a {cut['type']}; save its audio with lhotse first (CutSet.save_audios)")
    recording = cut.get("recording")
    if not isinstance(recording, Mapping):
        raise _BadCutError("no 'recording' in the cut")
    parts = list(_parts(cut, _seconds(cut, "start")))
    return _with_parts(_recording_entry(recording, base, number), parts, cut.get("supervisions") or [])


def _recording_entry(recording: Mapping[str, Any], base: Path, number: int) -> Entry:
    sources = recording.get("sources")
    if not isinstance(sources, list) or not all(isinstance(source, Mapping) for source in sources) or not sources:
        raise _BadCutError("no 'sources' of the recording")
    if len(sources) > 1:
        raise _BadCutError("a recording of several files; join its channels first")
    if recording.get("transforms"):
        raise _BadCutError("a recording that lhotse transforms when it loads it; save its audio first")
    kind, place = sources[0].get("type"), sources[0].get("source")
    if kind not in ("file", "url") or not isinstance(place, str) or not place:
        why = "a command, which is not run" if kind == "command" else f"audio of type {kind!r}, which is in no file"
        raise _BadCutError(f"{why}: {str(place)[:100]}")
    try:
        is_uri = names_remote(place)
    except UserError as error:
        raise _BadCutError(str(error)) from None
    return Entry(path=place if is_uri else _local_path(place, base), name=place, line=number)


def _local_path(place: str, base: Path) -> str:
    """Where a source lies: as seen from the manifest, else as lhotse sees it, from the current folder."""
    if is_remote(base):
        return f"{base}/{place}"
    path = os.path.join(base, place)
    return path if os.path.exists(path) or not os.path.exists(place) else os.path.abspath(place)


def _parts(cut: Mapping[str, Any], start: float) -> Iterator[GivenPart]:
    """A part for each supervision, or for the cut where it has one or none."""
    supervisions = cut.get("supervisions") or []
    if not isinstance(supervisions, list):
        raise _BadCutError("'supervisions' is no list")
    own = cut.get("custom") or {}
    about = {"id": cut.get("id"), **(own if isinstance(own, Mapping) else {})}
    of_cut = {"channel": cut.get("channel")}
    if len(supervisions) > 1:
        for supervision in supervisions:
            yield _part(of_cut | dict(_checked(supervision)), start, about)
    else:
        only = _checked(supervisions[0]) if supervisions else {}
        yield _part(of_cut | dict(only) | {"start": 0.0, "duration": _seconds(cut, "duration")}, start, about)


def _part(supervision: Row, start: float, about: Mapping[str, Any] | None = None) -> GivenPart:
    row = _checked(supervision)
    custom = row.get("custom") or {}
    known = {name: value for name, value in row.items() if name not in _OF_SUPERVISION}
    extra = custom if isinstance(custom, Mapping) else {}
    given = read_labels({**(about or {"id": row.get("id")}), **extra, **known})
    first = start + _seconds(row, "start")
    return GivenPart(
        text=given.text or "",
        start=round(first, DIGITS),
        end=round(first + _seconds(row, "duration"), DIGITS),
        channel=_channel(row),
        speaker=given.speaker,
        labels=given.labels,
    )


def _channel(row: Mapping[str, Any]) -> int | None:
    """The channel on which a supervision is said; None where it is on several, or does not say so."""
    channels = row.get("channel")
    if isinstance(channels, list) and len(channels) == 1:
        channels = channels[0]
    is_number = isinstance(channels, int) and not isinstance(channels, bool) and channels >= 0
    return channels if is_number else None


def _with_parts(entry: Entry, parts: list[GivenPart], supervisions: Iterable[object]) -> Entry:
    """An entry with its parts, in their language where all have the same."""
    entry = replace(entry, segments=tuple(parts))
    given = [one.get("language") for one in supervisions if isinstance(one, Mapping)]
    spoken = {_code(language): language for language in given if isinstance(language, str)}
    if len(spoken) == 1 and all(isinstance(language, str) for language in given):
        return with_labels(entry, {"language": next(iter(spoken.values()))})
    return differing(entry, {_code(language) if isinstance(language, str) else None for language in given})


def _code(language: str) -> str | None:
    try:
        return language_code(language)
    except UserError:
        return language


def _checked(row: Row) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise _BadCutError(row if isinstance(row, str) else "not an object")
    return row


def _text(row: Row, name: str) -> str:
    value = _checked(row).get(name)
    if not isinstance(value, str):
        raise _BadCutError(f"no {name!r}")
    return value


def _seconds(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _BadCutError(f"{name!r} is no number of seconds")
    return float(value)
