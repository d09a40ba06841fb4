"""The bytes of a recording as a file to decode from: on this machine, in object storage, inside a tar or a table.

What a machine cannot see is never the recording's fault: only a file that is certainly not there (404), or that this
user may not read on a disk of its own, is an `AudioProblem`. A refused or failed request ends the job in one line.
"""

import hashlib
import io
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow.parquet as pq

from voxmill.core.audio import AudioProblem, unreadable
from voxmill.core.files import publish, temporary_beside
from voxmill.core.storage import is_remote, read_range, scratch_folder, storage_failure, to_path
from voxmill.data.records import Window

WHOLE_BYTES = 32_000_000
"""Smaller files come from object storage in one request."""
HEAD_BYTES = 256_000
"""So many tell whether an object is sound."""
BLOCK_BYTES = 8_000_000
"""Of a larger one, as much is read ahead at a time."""
STAGED_BYTES = 20e9
"""Files of containers that are read back and forth, kept in the scratch folder of a machine: so many bytes at most."""
# These keep their index apart from the sound and interleave: a decoder that reads ranges asks for thousands.
_SEEKING = re.compile(rb"....ftyp|....moov|....mdat|....wide|....free|....skip", re.DOTALL)


class StorageError(OSError):
    """Storage did not give what it has: the machine's fault or the account's, never a recording's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFile:
    """Where the bytes of a recording are.

    path: local path or URI. bytes_offset, bytes_size: its part of that file; None: all of it. row: of a Parquet file
    with a column `audio` that holds the bytes, from 0. name: of the recording; its end tells of raw formats.
    """

    path: str
    name: str
    bytes_offset: int | None = None
    bytes_size: int | None = None
    row: int | None = None

    @property
    def location(self) -> str:
        """The same for two names of the same bytes; links of a local file are followed."""
        path = self.path if "://" in self.path else os.path.realpath(self.path)
        where = [str(part) for part in (self.bytes_offset, self.row) if part is not None]
        return ":".join([path, *where])


def media_of(window: Window) -> MediaFile:
    """Where a window's recording is."""
    return MediaFile(
        path=window.path,
        name=window.name,
        bytes_offset=window.bytes_offset,
        bytes_size=window.bytes_size,
        row=window.row,
    )


def open_media(media: MediaFile) -> BinaryIO:
    """The recording's bytes as a binary file that can seek.

    Raises:
        AudioProblem: missing, no_permission or empty_file.
        StorageError: the storage does not answer, or refuses.
    """
    path = to_path(media.path)
    if not is_remote(path) and media.row is None:
        return _open_local(path, media)
    try:
        file = _open_row(path, media.row) if media.row is not None else _open_remote(path, media)
    except FileNotFoundError:
        raise AudioProblem("missing", "no such file") from None
    except AudioProblem:
        raise
    except Exception as error:
        raise _storage_error(media.path, error) from error
    return file


def read_head(media: MediaFile) -> bytes:
    """The first bytes of an object, to look at before it is fetched.

    Raises:
        AudioProblem: missing or empty_file. StorageError: the storage does not answer, or refuses.
    """
    path = to_path(media.path)
    try:
        size = media.bytes_size or int(cast(Any, path).fs.info(cast(Any, path).path)["size"])
        head = read_range(path, media.bytes_offset or 0, min(size, HEAD_BYTES)) if size else b""
    except FileNotFoundError:
        raise AudioProblem("missing", "no such file") from None
    except Exception as error:
        raise _storage_error(media.path, error) from error
    if not head:
        raise AudioProblem("empty_file", "0 bytes")
    return head


def is_seeking(head: bytes) -> bool:
    """Whether a file that begins so has its index apart from the sound, maybe at its end."""
    return _SEEKING.match(head) is not None


def _open_local(path: Path, media: MediaFile) -> BinaryIO:
    try:
        # A URL-like or protocol-like name must stay a file: FFmpeg gets the bytes, never the name.
        file = open(path, "rb")  # noqa: SIM115 - closed by the caller
        size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise unreadable(error) from None
    guarded = cast(BinaryIO, io.BufferedReader(_Guarded(file, media.name), 1 << 16))
    if media.bytes_size is not None:
        return _part(guarded, media.bytes_offset or 0, media.bytes_size, size)
    if size == 0:
        guarded.close()
        raise AudioProblem("empty_file", "0 bytes")
    return guarded


def _open_remote(path: Path, media: MediaFile) -> BinaryIO:
    offset = media.bytes_offset or 0
    total = int(cast(Any, path).fs.info(cast(Any, path).path)["size"])
    size = total if media.bytes_size is None else media.bytes_size
    if size == 0 or total == 0:
        raise AudioProblem("empty_file", "0 bytes")
    if offset + size > total:
        raise AudioProblem("changed", f"bytes {offset} to {offset + size} of a file of {total}")
    if size <= WHOLE_BYTES:
        content = read_range(path, offset, size)
        if len(content) != size:
            raise StorageError(f"{media.path}: {len(content)} bytes came where {size} were asked for")
        return io.BytesIO(content)
    if is_seeking(read_range(path, offset, 8)):
        staged = open(_staged(path, offset, size), "rb")  # noqa: SIM115 - closed by the caller
        return staged
    file = cast(Any, path).open("rb", block_size=BLOCK_BYTES, cache_type="readahead")
    guarded = cast(BinaryIO, io.BufferedReader(_Guarded(file, media.path), 1 << 16))
    return guarded if size == total else _part(guarded, offset, size, total)


class _Guarded(io.RawIOBase):
    """A file whose failures no decoder takes for its end or for damage: of object storage, or of a failing disk."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._file.read(len(buffer))
        except Exception as error:
            raise _storage_error(self._name, error) from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Part(io.RawIOBase):
    """A part of a file as a file.

    patch: where in the part other bytes stand than in the file, and which. owned: whether it closes the file.
    """

    def __init__(
        self, file: BinaryIO, offset: int, size: int, patch: tuple[int, bytes] = (0, b""), owned: bool = True
    ) -> None:
        self._file, self._offset, self._size, self._position = file, offset, size, 0
        self._patch, self._owned = patch, owned

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._size - self._position), 0)
        self._file.seek(self._offset + self._position)
        content = self._file.read(count)
        buffer[: len(content)] = content
        place, patch = self._patch
        for position in range(max(place, self._position), min(place + len(patch), self._position + len(content))):
            buffer[position - self._position] = patch[position - place]
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed and self._owned:
            self._file.close()
        super().close()


def part_of(
    file: BinaryIO, offset: int, size: int, patch: tuple[int, bytes] = (0, b""), *, owned: bool = True
) -> BinaryIO:
    """`size` bytes of an open file from `offset` on as a file.

    Args:
        patch: where in the part other bytes stand than in the file, and which.
        owned: whether the part closes the file.
    """
    return cast(BinaryIO, io.BufferedReader(_Part(file, offset, size, patch, owned), 1 << 16))


def _part(file: BinaryIO, offset: int, size: int, total: int) -> BinaryIO:
    if size == 0 or offset + size > total:
        file.close()
        if size == 0:
            raise AudioProblem("empty_file", "0 bytes")
        raise AudioProblem("changed", f"bytes {offset} to {offset + size} of a file of {total}")
    return part_of(file, offset, size)


def _open_row(path: Path, row: int) -> BinaryIO:
    with path.open("rb") as file:
        content = _row_bytes(pq.ParquetFile(file), str(path), row)
    if not content:
        raise AudioProblem("empty_file", "0 bytes")
    return io.BytesIO(content)


def _row_bytes(table: pq.ParquetFile, path: str, row: int) -> bytes:
    first = 0
    for group in range(table.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        if row < first + count:
            column = _row_group(path, group, table)
            audio = column[row - first].as_py()
            return (audio if isinstance(audio, bytes) else (audio or {}).get("bytes")) or b""
        first += count
    raise AudioProblem("changed", f"row {row} of a table of {first}")


_last_group: dict[tuple[str, int], Any] = {}


def _row_group(path: str, group: int, table: pq.ParquetFile) -> Any:
    """A row group's audio; the last one that this process read is kept, since its neighbours are asked for next."""
    if (path, group) not in _last_group:
        column = table.read_row_group(group, columns=["audio"])["audio"]
        _last_group.clear()
        _last_group[path, group] = column
    return _last_group[path, group]


def _staged(path: Path, offset: int, size: int) -> Path:
    """A copy on this machine's own disk; the ones used longest ago make room."""
    folder = scratch_folder() / "voxmill-media"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(f"{path}:{offset}:{size}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    target = folder / name
    if target.exists():
        os.utime(target)
        return target
    _make_room(folder, size)
    temporary = temporary_beside(target)
    try:
        with open(temporary, "wb") as file, path.open("rb", block_size=BLOCK_BYTES) as source:  # type: ignore[call-overload]
            shutil.copyfileobj(source if offset == 0 else _Part(source, offset, size), file, BLOCK_BYTES)
        publish(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _make_room(folder: Path, size: int) -> None:
    kept = []
    for item in folder.iterdir():
        try:
            stat = item.stat()
        except FileNotFoundError:
            continue  # another worker of this machine made room
        kept.append((stat.st_mtime, stat.st_size, item))
    total = sum(one for _, one, _ in kept) + size
    for _, one, item in sorted(kept, key=lambda entry: entry[0]):
        if total <= STAGED_BYTES:
            return
        # Who reads it has it open: its bytes stay until they close it.
        item.unlink(missing_ok=True)
        total -= one


def _storage_error(name: str, error: Exception) -> StorageError:
    if isinstance(error, StorageError):
        return error
    failure = storage_failure(error)
    reason = str(failure or getattr(error, "strerror", None) or error).removeprefix("object storage: ")
    return StorageError(reason if reason.startswith(name) else f"{name}: {reason}")
