"""The shard format: plain WebDataset tars with a Parquet index beside them. Free of Ray; trainers read through it.

A tar is written once: temporary name, close, fsync, rename. The same members give the same bytes.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Member:
    """Where one file lies in its tar; offset and size in bytes of the content itself."""

    name: str
    offset: int
    size: int
    sha256: str


class TarWriter:
    """Writes a tar whose bytes depend on names and contents alone; it appears under its name only when complete."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = open(self._temporary, "wb")  # noqa: SIM115 - closed in __exit__
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, name: str, content: bytes) -> Member:
        """Appends one member and says where it lies."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o644
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(content))
        return Member(name, offset, len(content), hashlib.sha256(content).hexdigest())

    def __enter__(self) -> "TarWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def read_member(out: Path, shard: str, offset: int, size: int) -> bytes:
    """Content of one member by its index row. Raises ValueError for a shard path that leaves `out`."""
    path = (out / shard).resolve()
    if not path.is_relative_to(out.resolve()):
        raise ValueError(f"shard {shard!r} leaves {out}")
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a whole file under a temporary name, syncs it and renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any) -> bytes:
    """Canonical JSON: sorted keys, floats as Python prints them, UTF-8."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def clip_metadata(path: Path) -> Iterator[dict[str, Any]]:
    """The `.json` members of a shard, in order."""
    with tarfile.open(path) as tar:
        for info in tar:
            if info.name.endswith(".json"):
                content = tar.extractfile(info)
                assert content is not None
                yield json.loads(content.read())
