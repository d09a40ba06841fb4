"""Recordings inside tars, as WebDataset and Lhotse's Shar write them: members that share a name up to its first dot.

A sample's `.json` may have session, speaker, text, language and licence; a `.txt` beside it is its text, as are
subtitles, a TextGrid or labels. The audio is not read: an entry says where its bytes are in the tar.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from pipelines.inputs.entries import Entry, has_suffix, with_labels
from pipelines.inputs.transcripts import SUFFIXES, parse
from voxmill.core.storage import is_remote, to_path
from voxmill.data.records import GivenPart, RecordingWarning

# A tar of small members is read through, one of large ones by jumps from header to header.
BLOCK_BYTES = 1_000_000
LABEL_BYTES = 1_000_000
"""A larger `.json` or text is no label."""


def members(tar: Entry) -> list[Entry]:
    """What is in a tar beside labels, in its order; the last entry has a problem where it cannot be read to its end.

    Raises:
        OSError: the storage does not answer.
    """
    path = to_path(tar.path)
    options = {"block_size": BLOCK_BYTES} if is_remote(path) else {}
    found: list[Entry] = []
    try:
        with path.open("rb", **options) as file, tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
            found.extend(_samples(tar, archive))
    except FileNotFoundError:
        return [replace(tar, problem="missing", detail="no such file")]
    except tarfile.TarError as error:
        if not found:
            return [replace(tar, problem="not_audio", detail=f"not a readable tar ({error})")]
        found.append(replace(tar, problem="decode_error", detail=f"damaged tar ({error}); what comes after is lost"))
    return found


def _samples(tar: Entry, archive: tarfile.TarFile) -> Iterator[Entry]:
    key, sample = "", _Sample()
    damage: tarfile.TarError | None = None
    try:
        for member in archive:
            if not member.isfile():
                continue
            path = PurePosixPath(member.name)
            own = str(path.with_name(path.name.partition(".")[0]))
            if own != key:
                yield from sample.entries()
                key, sample = own, _Sample()
            if path.suffix not in (".json", *SUFFIXES) or member.size > LABEL_BYTES:
                place = Entry(
                    path=tar.path,
                    name=f"{tar.name}/{member.name}",
                    bytes_offset=member.offset_data,
                    bytes_size=member.size,
                    claimed=has_suffix(member.name),
                    stamp=tar.stamp,
                )
                sample.audio.append(place)
            else:
                file = archive.extractfile(member)
                assert file is not None
                if path.suffix in (".json", ".txt"):
                    sample.given |= _labels(file.read(), path.suffix)
                else:
                    sample.segments, sample.text_warnings = parse(file.read(), path.name)
    except tarfile.TarError as error:
        damage = error
    yield from sample.entries()
    if damage is not None:
        raise damage


@dataclass(slots=True)
class _Sample:
    """Members that share a name."""

    audio: list[Entry] = field(default_factory=list)
    given: dict[str, object] = field(default_factory=dict)
    segments: tuple[GivenPart, ...] = ()
    text_warnings: tuple[RecordingWarning, ...] = ()

    def entries(self) -> Iterator[Entry]:
        for entry in self.audio:
            yield replace(with_labels(entry, self.given), segments=self.segments, text_warnings=self.text_warnings)


def _labels(content: bytes, suffix: str) -> dict[str, object]:
    try:
        text = content.decode("utf-8")
        found = {"text": text.strip()} if suffix == ".txt" else json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
