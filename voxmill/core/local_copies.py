"""What lies in object storage and is used on this machine: copies that are kept, and folders that are sent back.

Programs that open files by name, map them or append to them need them here. A copy is made once a machine, by one
process under a lock while the others wait, and goes on where one that died left off.
"""

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from voxmill.core.errors import JobError, UserError
from voxmill.core.files import publish, remove_folder
from voxmill.core.hashing import fingerprint, sha256_file
from voxmill.core.storage import is_remote, read_ranges, scratch_folder, stamp_of, to_path, upload, uri

PIECE_BYTES = 8 << 20
PIECES = 8
"""So many are fetched at once."""


def local_copy(folder: Path, *, recursive: bool = False) -> Path:
    """A folder of files on this machine: itself, or a copy of one in object storage below the scratch folder.

    The copy is kept for the next process; another version of a file is another copy.

    Args:
        recursive: with its subfolders, which are left out otherwise.

    Raises:
        UserError: there is no file. JobError: it changed meanwhile. OSError: it cannot be read or copied.
    """
    return _copied(folder, recursive=recursive) if is_remote(folder) else folder


def local_model(name: str) -> str:
    """A model's name for the library that loads it: a hub id or local path as it is, a copy of a file or folder by URI.

    Raises:
        UserError: there is no file. JobError: it changed meanwhile. OSError: it cannot be read or copied.
    """
    path = to_path(name)
    if not is_remote(path):
        return str(path) if "://" in name else name
    if path.is_file():
        return str(_copied(path.parent, only=path.name) / path.name)
    return str(_copied(path, recursive=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote:
    """A file in object storage; `name` from the folder that is copied, `version` changes when it does."""

    name: str
    size: int
    version: str


def _files(folder: Path, recursive: bool, only: str) -> list[_Remote]:
    filesystem: Any = folder.fs  # type: ignore[attr-defined]
    root: str = folder.path.rstrip("/")  # type: ignore[attr-defined]
    try:
        if recursive:
            listed = list(filesystem.find(root, detail=True, refresh=True).values())
        else:
            listed = filesystem.ls(root, detail=True, refresh=True)
    except FileNotFoundError:
        listed = []
    found = []
    for entry in listed:
        name = entry["name"].removeprefix(f"{root}/")
        if entry["type"] != "file" or name.endswith("/") or (only and name != only):
            continue
        if ".." in name.split("/") or name.startswith("/"):
            raise UserError(f"{folder}/{name}: leaves the folder; remove it")
        found.append(_Remote(name=name, size=int(entry["size"]), version=stamp_of(entry)))
    return sorted(found, key=lambda file: file.name)


def _copied(folder: Path, *, recursive: bool = False, only: str = "") -> Path:
    files = _files(folder, recursive, only)
    if not files:
        raise UserError(f"{folder}: there is no file; name a folder in object storage")
    version = fingerprint([uri(folder), [[file.name, file.size, file.version] for file in files]])
    copy = scratch_folder() / f"voxmill-copy-{version[:24]}"
    with copy_lock(copy):
        if not copy.is_dir():
            begun = copy.with_name(f"{copy.name}.part")
            for file in files:
                if not (begun / file.name).exists():
                    copy_file(folder / file.name, begun / file.name, file.size)
            if _files(folder, recursive, only) != files:
                shutil.rmtree(begun)
                raise JobError(f"{folder} was changed while it was copied; run the same command again")
            begun.rename(copy)
    return copy


def copy_file(source: Path, target: Path, size: int, sha256: str | None = None) -> None:
    """Copies a file to this machine; goes on where another try left off. One process at a time: see `copy_lock`.

    Args:
        size: of the source.
        sha256: of its content, where that is known.

    Raises:
        UserError: it has another sha256. OSError: it cannot be read, is shorter, or cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with open(part, "ab") as file:
        # Of what was not synced, some may be missing after a crash of the machine.
        synced = max(part.stat().st_size - PIECE_BYTES * PIECES, 0)
        file.truncate(synced if synced <= size else 0)
        done = part.stat().st_size
        while done < size:
            starts = range(done, min(done + PIECE_BYTES * PIECES, size), PIECE_BYTES)
            for content in read_ranges(source, [(start, min(PIECE_BYTES, size - start)) for start in starts]):
                file.write(content)
                done += len(content)
            file.flush()
            os.fsync(file.fileno())
            if done < min(starts[-1] + PIECE_BYTES, size):
                raise OSError(f"{source} ends after {done:,} of {size:,} bytes")
    if sha256 is not None and (found := sha256_file(part)) != sha256:
        part.unlink()
        raise UserError(f"{source} has sha256 {found}, expected {sha256}; put the right file there")
    publish(part, target)


@contextlib.contextmanager
def copy_lock(copy: Path) -> Iterator[None]:
    """Held by the one process of this machine that makes a copy; the others wait for it."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with open(copy.with_name(f"{copy.name}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class WorkingFolder:
    """A folder for programs that append to files or keep a database, and its place in object storage.

    What lies here is uploaded file by file when `push` is called: after a crash of the machine the folder in object
    storage is as the last push left it. `local` is `out` itself where that is on this machine, and otherwise a folder
    below the scratch folder.

    Args:
        out: a local path or one in object storage.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.is_remote = out, is_remote(out)
        self.local = out
        if self.is_remote:
            self.local = scratch_folder() / f"voxmill-work-{fingerprint(uri(out))[:24]}"
        self._pushed: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._claim: BinaryIO | None = None

    def fetch(self, *names: str) -> None:
        """Makes the local folder anew with these files of `out`, those that are there; all files where none is named.

        Raises:
            UserError: a name in object storage leaves the folder, or another process works with it.
            OSError: something cannot be read or written.
        """
        if not self.is_remote:
            return
        self.close()
        self._claim = open(self.local.with_name(f"{self.local.name}.lock"), "wb")  # noqa: SIM115 (until `close`)
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.out}: another process of this machine writes it; wait for it") from None
        remove_folder(self.local)
        self.local.mkdir(parents=True)
        filesystem, root = self.out.fs, self.out.path.rstrip("/")  # type: ignore[attr-defined]
        found = names or [place.removeprefix(f"{root}/") for place in filesystem.find(root, refresh=True)]
        for name in found:
            if ".." in name.split("/") or name.startswith("/"):
                raise UserError(f"{self.out}/{name}: leaves the folder; remove it")
            if names and not (self.out / name).is_file():
                continue
            (self.local / name).parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(f"{root}/{name}", str(self.local / name))
            self._pushed[name] = self._stamp(name)

    def close(self) -> None:
        """Lets another process of this machine work with the folder."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def push(self) -> None:
        """Uploads what is new or was changed since the last time; from any thread.

        Raises:
            OSError: something cannot be uploaded.
        """
        if not self.is_remote:
            return
        with self._lock:
            paths = [path for path in sorted(self.local.rglob("*")) if path.is_file() and path.suffix != ".tmp"]
            for name in (path.relative_to(self.local).as_posix() for path in paths):
                stamp = self._stamp(name)
                if self._pushed.get(name) == stamp:
                    continue
                # A copy, since the file may grow while it is sent.
                copy = self.local / f".{name.replace('/', '-')}.tmp"
                shutil.copyfile(self.local / name, copy)
                upload(copy, self.out / name)
                copy.unlink()
                self._pushed[name] = stamp

    def _stamp(self, name: str) -> tuple[int, int]:
        state = (self.local / name).stat()
        return state.st_size, state.st_mtime_ns
