"""Recordings inside tars, as WebDataset and Lhotse's Shar write them: members that share a name up to its first dot.

A sample's `.json` may have session, speaker, text, language and licence; a `.txt` beside it is its text. The audio is
not read: an entry says where its bytes are in the tar.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from pipelines.inputs.entries import OPTIONAL, Entry, has_suffix
from voxmill.core.storage import is_remote, to_path

# A tar of small members is read through, one of large ones by jumps from header to header.
BLOCK_BYTES = 1_000_000
LABEL_BYTES = 1_000_000
"""A larger `.json` or `.txt` is no label."""


def members(tar: Entry) -> list[Entry]:
    """The recordings of a tar in its order; one entry with a problem where it cannot be read.

    Raises:
        OSError: the storage does not answer.
    """
    path = to_path(tar.path)
    try:
        with path.open("rb", block_size=BLOCK_BYTES) if is_remote(path) else path.open("rb") as file:  # type: ignore[call-overload]
            with tarfile.open(fileobj=file, mode="r:") as archive:
                return list(_samples(tar, archive))
    except FileNotFoundError:
        return [replace(tar, problem="missing", detail="no such file")]
    except tarfile.TarError as error:
        return [replace(tar, problem="not_audio", detail=f"not a readable tar ({error})")]


def _samples(tar: Entry, archive: tarfile.TarFile) -> Iterator[Entry]:
    key, audio = "", list[Entry]()
    labels: dict[str, str | None] = {}
    for member in archive:
        if not member.isfile():
            continue
        path = PurePosixPath(member.name)
        own = str(path.with_name(path.name.partition(".")[0]))
        if own != key:
            yield from (replace(entry, **labels) for entry in audio)
            key, audio, labels = own, [], {}
        if has_suffix(member.name):
            place = {"bytes_offset": member.offset_data, "bytes_size": member.size}
            audio.append(Entry(path=tar.path, name=f"{tar.name}/{member.name}", stamp=tar.stamp, **place))
        elif path.suffix in (".json", ".txt") and member.size <= LABEL_BYTES:
            file = archive.extractfile(member)
            assert file is not None
            labels |= _labels(file.read(), path.suffix)
    yield from (replace(entry, **labels) for entry in audio)


def _labels(content: bytes, suffix: str) -> dict[str, str | None]:
    try:
        text = content.decode("utf-8")
        if suffix == ".txt":
            return {"text": text.strip() or None}
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: found[key] for key in OPTIONAL if isinstance(found.get(key), str) and found[key]}
