"""A folder as Kaldi has them: `wav.scp`, `text`, and where recordings are longer than utterances `segments`.

`utt2spk` names the speakers of utterances, and `spk2gender` what these are. The folder's small files are read whole.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.inputs.entries import Entry
from pipelines.inputs.labels import with_labels
from voxmill.core.storage import is_remote
from voxmill.data.records import GivenLabels, GivenPart


def is_kaldi(folder: Path) -> bool:
    """Whether a folder is one of Kaldi's."""
    return (folder / "wav.scp").is_file()


def kaldi_entries(folder: Path) -> Iterator[Entry]:
    """Recordings of `wav.scp` in its order, with the texts of their utterances."""
    texts, speakers = dict(_rows(folder / "text")), dict(_rows(folder / "utt2spk"))
    genders = dict(_rows(folder / "spk2gender"))
    utterances: dict[str, list[tuple[str, GivenPart]]] = {}
    malformed: dict[str, str] = {}
    for utterance, row in _rows(folder / "segments"):
        fields = row.split()
        try:
            part = GivenPart(
                text=texts.get(utterance, ""),
                start=float(fields[1]),
                end=float(fields[2]),
                speaker=speakers.get(utterance),
                labels=_of_gender(genders.get(speakers.get(utterance, ""))),
            )
        except (IndexError, ValueError):
            malformed[fields[0] if fields else utterance] = f"segments: {utterance} {row}"
        else:
            utterances.setdefault(fields[0], []).append((utterance, part))
    for number, (recording, place) in enumerate(_rows(folder / "wav.scp"), 1):
        own = utterances.get(recording, [])
        names = {speakers.get(utterance, "") for utterance in [one for one, _ in own] or [recording]}
        labels: dict[str, object] = {"session": recording, "text": None if own else texts.get(recording)}
        if len(names) == 1:
            labels["speaker"] = next(iter(names))
            labels["gender"] = genders.get(str(labels["speaker"]))
        entry = Entry(path=_path(folder, place), name=recording, line=number, segments=tuple(part for _, part in own))
        if place.endswith("|") or recording in malformed:
            detail = malformed.get(recording, f"wav.scp: a command, which is not run: {place}")
            entry = Entry(path="", name=recording, line=number, problem="malformed_row", detail=detail)
        yield with_labels(entry, labels)


def _of_gender(gender: str | None) -> GivenLabels | None:
    return None if gender is None else GivenLabels(gender=gender)


def _path(folder: Path, place: str) -> str:
    if "://" in place or is_remote(folder):
        return place if "://" in place else f"{folder}/{place}"
    return os.path.join(folder, place)


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    """(name, the rest) of the lines of a file; none where there is no such file."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        name, _, rest = line.strip().partition(" ")
        if name:
            yield name, rest.strip()
