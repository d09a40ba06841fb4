"""Recordings inside tars, as WebDataset and Lhotse's Shar write them: members that share a name up to its first dot.

A sample's `.json` has its labels; a `.txt` beside it is its text, as are subtitles, a TextGrid or labels with times. In
Shar the cuts of a file of their own have them, by names without the last suffix. The audio is not read: an entry says
where its bytes are in the tar.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from pipelines.inputs.corpora.lhotse import is_recording, labelled
from pipelines.inputs.corpora.tables import rows
from pipelines.inputs.entries import Entry, has_suffix
from pipelines.inputs.labels import COLUMNS, BadLabelError, with_labels, with_warning
from pipelines.inputs.transcripts import SUFFIXES, parse
from voxmill.core.storage import is_remote, to_path
from voxmill.data.records import GivenPart, RecordingWarning

# A tar of small members is read through, one of large ones by jumps from header to header.
BLOCK_BYTES = 1_000_000
LABEL_BYTES = 1_000_000
"""A larger `.json` or text is no label."""


def members(tar: Entry) -> list[Entry]:
    """What is in a tar beside labels, in its order; the last entry has a problem where it cannot be read to its end.

    Args:
        tar: with the file of its cuts as `text_path` where it is one of Shar.

    Raises:
        OSError: the storage does not answer.
    """
    path = to_path(tar.path)
    options = {"block_size": BLOCK_BYTES} if is_remote(path) else {}
    found: list[Entry] = []
    try:
        with path.open("rb", **options) as file, tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
            found.extend(_shar(tar, archive) if tar.text_path else _labelled(tar, archive))
    except FileNotFoundError:
        return [replace(tar, problem="missing", detail="no such file")]
    except tarfile.TarError as error:
        if not found:
            return [replace(tar, problem="not_audio", detail=f"not a readable tar ({error})")]
        found.append(replace(tar, problem="decode_error", detail=f"damaged tar ({error}); what comes after is lost"))
    return found


def _labelled(tar: Entry, archive: tarfile.TarFile) -> Iterator[Entry]:
    """Recordings with their labels; one that has none though others have says so."""
    samples, damage = _samples(tar, archive, by_first_dot=True)
    some_have = any(sample.has_json and sample.audio for sample in samples)
    for sample in samples:
        yield from sample.entries(labels_wanted=some_have)
    if damage is not None:
        raise damage


def _samples(
    tar: Entry, archive: tarfile.TarFile, *, by_first_dot: bool
) -> tuple[list["_Sample"], tarfile.TarError | None]:
    """The samples of a tar, in the order in which they begin, and what ends it before its end.

    Tars that were not written by name have the labels of a sample far from its recording.
    """
    samples: dict[str, _Sample] = {}
    names: set[str] = set()
    try:
        for member in archive:
            if not member.isfile():
                continue
            path = PurePosixPath(member.name)
            key = str(path.with_name((path.name.partition(".")[0] if by_first_dot else path.stem) or path.name))
            sample = samples.setdefault(key, _Sample(key=key, tar=tar))
            is_repeated = member.name in names
            names.add(member.name)
            if path.suffix not in (".json", *SUFFIXES) or member.size > LABEL_BYTES:
                sample.add(member, is_repeated=is_repeated)
            elif is_repeated:
                sample.problem = f"{path.name}: again, which was not read"
            else:
                file = archive.extractfile(member)
                assert file is not None
                sample.label(file.read(), path)
    except tarfile.TarError as error:
        return [*samples.values()], error
    return [*samples.values()], None


@dataclass(slots=True)
class _Sample:
    """Members that share a name."""

    key: str
    tar: Entry
    audio: list[Entry] = field(default_factory=list)
    given: dict[str, object] = field(default_factory=dict)
    has_json: bool = False
    problem: str = ""
    segments: tuple[GivenPart, ...] = ()
    text_warnings: tuple[RecordingWarning, ...] = ()

    def add(self, member: tarfile.TarInfo, *, is_repeated: bool) -> None:
        """Adds what is no label."""
        twice = "the tar has another one of this name before it"
        self.audio.append(
            Entry(
                path=self.tar.path,
                name=f"{self.tar.name}/{member.name}" + " (again)" * is_repeated,
                bytes_offset=member.offset_data,
                bytes_size=member.size,
                # Copies of files from a Mac have another one beside each, of a few bytes about it.
                claimed=has_suffix(member.name) and not PurePosixPath(member.name).name.startswith("._"),
                stamp=self.tar.stamp,
                problem="duplicate_id" if is_repeated else None,
                detail=twice if is_repeated else "",
            )
        )

    def label(self, content: bytes, path: PurePosixPath) -> None:
        """Adds a label by its suffix."""
        if path.suffix not in (".json", ".txt"):
            self.segments, self.text_warnings = parse(content, path.name)
            return
        self.has_json |= path.suffix == ".json"
        try:
            text = content.decode("utf-8-sig")
            found = {"text": text.strip()} if path.suffix == ".txt" else json.loads(text)
        except (ValueError, RecursionError) as error:
            self.problem = f"{path.name}: {error}"
            return
        if not isinstance(found, dict):
            self.problem = f"{path.name}: not an object"
        elif not is_recording(found):
            self.given |= found

    def entries(self, *, labels_wanted: bool) -> Iterator[Entry]:
        """Its recordings with their labels; a label alone where it has none."""
        if not self.audio and self.has_json:
            detail = "labels without a recording beside them"
            is_sample = any(name in self.given for names in COLUMNS.values() for name in names)
            problem = "no_audio" if is_sample else "not_audio"
            yield replace(
                self.tar,
                name=f"{self.tar.name}/{self.key}.json",
                claimed=is_sample,
                problem=problem,
                detail=detail,
                text_path=None,
            )
        for entry in self.audio:
            entry = replace(entry, segments=self.segments, text_warnings=self.text_warnings)
            try:
                entry = with_labels(entry, self.given)
            except BadLabelError as error:
                entry = with_warning(entry, str(error))
            if self.problem:
                entry = with_warning(entry, self.problem)
            if labels_wanted and not self.has_json and entry.claimed:
                yield without_labels(entry, "no .json beside it, though others in its tar have one")
            else:
                yield entry


def without_labels(entry: Entry, detail: str) -> Entry:
    """An entry that lacks the labels that its neighbours have."""
    warning = RecordingWarning(kind="labels_missing", detail=detail)
    return replace(entry, label_warnings=(*entry.label_warnings, warning))


# ---- Shar


def _shar(tar: Entry, archive: tarfile.TarFile) -> Iterator[Entry]:
    """Recordings with what their cuts say of them."""
    assert tar.text_path is not None
    cuts: dict[str, Mapping[str, Any]] = {}
    path = to_path(tar.text_path)
    for number, row in rows(path):
        name = row.get("id") if isinstance(row, Mapping) else row
        if isinstance(row, str) or not isinstance(name, str) or name in cuts:
            problem = "duplicate_id" if isinstance(row, Mapping) and name in cuts else "malformed_row"
            why = "a cut of this id comes before it" if problem == "duplicate_id" else f"{name or 'no id'}"
            yield Entry(path="", name=f"{path.name}:{number}", line=number, problem=problem, detail=why)
        else:
            cuts[name] = row
    prefix = len(tar.name) + 1
    samples, damage = _samples(replace(tar, text_path=None), archive, by_first_dot=False)
    for sample in samples:
        for entry in sample.audio:
            cut = None if entry.problem else cuts.pop(sample.key, None)
            if cut is None:
                missing = f"{path.name} has no cut {entry.name[prefix:]}"
                yield entry if entry.problem else without_labels(entry, missing)
                continue
            try:
                yield labelled(entry, cut)
            except BadLabelError as error:
                yield with_warning(entry, str(error))
    if damage is not None:
        raise damage
    for name in cuts:
        detail = f"{path.name} has a cut of this id, its tar no recording"
        yield replace(tar, name=f"{tar.name}/{name}", problem="no_audio", detail=detail, text_path=None)
