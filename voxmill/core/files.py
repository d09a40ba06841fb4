"""Whole files and folders or none: a hidden temporary name beside the target, fsync, rename, fsync of the parent.

Temporary names are `.NAME.HEX.tmp`; HEX is random, since two machines may share a folder and a process number. What
goes to object storage is made in the scratch folder and uploaded, which is whole or not at all by itself.
"""

import contextlib
import errno
import os
import shutil
import stat
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from voxmill.core.machine.processes import ProcessId
from voxmill.core.storage import is_remote, scratch_folder, upload, uri

_TEMPORARIES = ".*.tmp"


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a whole file, text as UTF-8; makes missing parent folders."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file, open for reading and writing, that appears as `path` when the block ends without an error."""
    with atomic_path(path) as temporary, open(temporary, "w+b") as file:
        yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name for what opens files itself; what is written there becomes `path` when the block ends.

    Raises:
        FileNotFoundError: nothing was written there.
    """
    make_parents(path)
    temporary = temporary_beside(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False, last: str = "") -> Iterator[Path]:
    """An empty folder that appears as `path` when the block ends without an error, and is removed otherwise.

    Its files get the read permissions that the umask allows; safetensors, for one, lets nobody but the owner read.
    Object storage has no folders: what the block makes on this machine is uploaded file by file.

    Args:
        replace: whether an older folder of that name, empty or not, is removed just before.
        last: the file without which readers take the folder for nothing; uploaded last, and removed first.

    Raises:
        OSError: `path` exists, is not an empty folder, and `replace` is False.
    """
    target = path if not isinstance(path, str) else Path(path)
    if is_remote(target):
        with _uploaded_folder(target, replace=replace, last=last) as temporary:
            yield temporary
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    temporary.mkdir()
    try:
        yield temporary
        readable = temporary.stat().st_mode & 0o666
        for part in sorted(temporary.rglob("*")):
            if part.is_file():
                part.chmod(part.stat().st_mode & 0o777 | readable)
            _sync(part)
        _sync(temporary)
        if replace and target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def _uploaded_folder(target: Path, *, replace: bool, last: str) -> Iterator[Path]:
    temporary = uploads_of(target.parent) / temporary_beside(target).name
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if target.exists():
            if not replace:
                raise OSError(errno.ENOTEMPTY, "not empty", uri(target))
            if last:
                (target / last).unlink(missing_ok=True)
            remove_folder(target)
        files = [part.relative_to(temporary).as_posix() for part in sorted(temporary.rglob("*")) if part.is_file()]
        for name in sorted(files, key=lambda name: name == last):
            upload(temporary / name, target / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def uploads_of(folder: Path) -> Path:
    """Where `atomic_folder` makes on this machine what it uploads to a folder in object storage."""
    from voxmill.core.hashing import fingerprint

    return scratch_folder() / f"voxmill-uploads-{fingerprint(uri(folder))[:24]}"


def make_parents(path: Path) -> None:
    """Makes missing parent folders; object storage has none."""
    if not is_remote(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def temporary_beside(path: Path) -> Path:
    """A new temporary name for `path`, always on this machine, for writers that end with `publish`.

    That of a part of an index lies beside the index: polars, for one, reads no folder that holds anything but parts.
    """
    unique = f"{uuid.uuid4().hex[:12]}.tmp"
    if is_remote(path):
        # A key may be longer than a file's name here.
        return _own_scratch() / f".{path.name[-40:]}.{unique}"
    name = f".{path.name}.{unique}"
    return (path.parent if path.parent.suffix == ".parquet" else path).with_name(name)


def _own_scratch() -> Path:
    """This process's folder for what it uploads; those of processes that were killed are removed on the way."""
    folder = scratch_folder() / _scratch_name(ProcessId.own())
    if not folder.is_dir():
        for other in scratch_folder().glob("voxmill-upload-*"):
            number, _, started = other.name.rpartition("-")[2].partition("s")
            place = ProcessId.own().place
            process = ProcessId(place, int(number), started)
            if other.name == _scratch_name(process) and process.is_dead():
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
    return folder


def _scratch_name(process: ProcessId) -> str:
    return f"voxmill-upload-{zlib.crc32(process.place.encode()):08x}-{process.number}s{process.started}"


def publish(temporary: Path, path: Path) -> None:
    """Syncs a finished temporary file and renames it to `path`, or uploads and removes it; an older one is replaced."""
    if is_remote(path):
        upload(temporary, path)
        temporary.unlink()
        return
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a file, or a folder and all in it; nothing where it is not there."""
    if is_remote(path):
        if path.exists():
            path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_temporaries(folder: Path, *, recursive: bool = False) -> None:
    """Removes temporary files and folders that a killed process left in `folder`, and below it if `recursive`.

    Object storage holds none.
    """
    if is_remote(folder):
        return
    for path in list(folder.rglob(_TEMPORARIES) if recursive else folder.glob(_TEMPORARIES)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file below a folder: its name from there, with slashes, and its size in bytes."""

    name: str
    size: int


def list_files(root: Path, folder: str = "", *, recursive: bool = True) -> Iterator[StoredFile]:
    """Files in a folder below `root`, and below it if `recursive`. Links are left out, and none is followed."""
    if is_remote(root):
        filesystem = root.fs  # type: ignore[attr-defined]
        start = f"{root.path.rstrip('/')}/"  # type: ignore[attr-defined]
        place, found = f"{start}{folder}".rstrip("/"), []
        if recursive:
            found = list(filesystem.find(place, detail=True, refresh=True).values())
        else:
            # `find` of one level takes a failed listing for an empty folder.
            with contextlib.suppress(FileNotFoundError):
                found = filesystem.ls(place, detail=True, refresh=True)
        for entry in sorted(found, key=lambda entry: str(entry["name"])):
            # The marker of a folder has the folder's own name.
            if entry["type"] == "file" and entry["name"] != place:
                yield StoredFile(name=entry["name"].removeprefix(start), size=int(entry["size"] or 0))
        return
    if (root / folder).is_symlink():
        return
    for place, folders, names in os.walk(root / folder, onerror=_unless_gone):
        folders[:] = sorted(folders) if recursive else []
        for name in sorted(names):
            path = Path(place, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield StoredFile(name=path.relative_to(root).as_posix(), size=status.st_size)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def remove_files(root: Path, names: Sequence[str]) -> None:
    """Removes files below `root` by their names from there, and folders that are empty then.

    One that is gone already is passed over.

    Raises:
        OSError: one cannot be removed.
    """
    if not is_remote(root):
        for name in names:
            (root / name).unlink(missing_ok=True)
        for folder in {Path(name).parent for name in names}:
            _remove_if_empty(root, folder)
    elif names:
        start = f"{root.path.rstrip('/')}/"  # type: ignore[attr-defined]
        with contextlib.suppress(FileNotFoundError):
            root.fs.rm([start + name for name in names])  # type: ignore[attr-defined]


def _remove_if_empty(root: Path, folder: Path) -> None:
    """Removes a folder below `root` that holds nothing, and then those above it that hold nothing else."""
    while folder.name:
        try:
            (root / folder).rmdir()
        except OSError:
            # It holds something, or is gone already.
            return
        folder = folder.parent
