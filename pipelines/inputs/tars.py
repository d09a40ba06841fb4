"""Recordings inside tars, as WebDataset and Lhotse's Shar write them: members that share a name up to its first dot.

A sample's `.json` may have session, speaker, text, language and licence; a `.txt` beside it is its text. The audio is
not read: an entry says where its bytes are in the tar.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from pipelines.inputs.entries import Entry, has_suffix, with_labels
from voxmill.core.storage import is_remote, to_path

# A tar of small members is read through, one of large ones by jumps from header to header.
BLOCK_BYTES = 1_000_000
LABEL_BYTES = 1_000_000
"""A larger `.json` or `.txt` is no label."""


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
    key, audio = "", list[Entry]()
    given: dict[str, object] = {}
    damage: tarfile.TarError | None = None
    try:
        for member in archive:
            if not member.isfile():
                continue
            path = PurePosixPath(member.name)
            own = str(path.with_name(path.name.partition(".")[0]))
            if own != key:
                yield from (with_labels(entry, given) for entry in audio)
                key, audio, given = own, [], {}
            if path.suffix not in (".json", ".txt") or member.size > LABEL_BYTES:
                place = Entry(
                    path=tar.path,
                    name=f"{tar.name}/{member.name}",
                    bytes_offset=member.offset_data,
                    bytes_size=member.size,
                    claimed=has_suffix(member.name),
                    stamp=tar.stamp,
                )
                audio.append(place)
            else:
                file = archive.extractfile(member)
                assert file is not None
                given |= _labels(file.read(), path.suffix)
    except tarfile.TarError as error:
        damage = error
    yield from (with_labels(entry, given) for entry in audio)
    if damage is not None:
        raise damage


def _labels(content: bytes, suffix: str) -> dict[str, object]:
    try:
        text = content.decode("utf-8")
        found = {"text": text.strip()} if suffix == ".txt" else json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
