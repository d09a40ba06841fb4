"""Every file in a folder or below a prefix, and what a pattern matches, in the order of their names.

Folder by folder, so that no more than one folder's names are in memory, whatever the size of the whole. A link to a
folder is followed once; one that leads where the walk comes by itself, or has been, is an entry that says so.
"""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.inputs.entries import Entry, has_suffix
from pipelines.inputs.transcripts import SUFFIXES, text_beside
from voxmill.core.storage import Listed, is_remote, list_folder, to_path


def walk(root: Path) -> Iterator[Entry]:
    """Every file in a folder and below it, by name; a tar stands for what is in it."""
    return _walk_remote(root) if is_remote(root) else _LocalWalk(root).folder("")


def matches(pattern: str) -> Iterator[Entry]:
    """Files whose paths match a pattern: `*`, `?`, `[...]` in a name, `**` for folders at any depth.

    Raises:
        UserError: an unknown scheme.
    """
    if "://" not in pattern:
        for path in sorted(glob.glob(pattern, recursive=True)):
            if not os.path.isdir(path):
                stem = path.rpartition(".")[0]
                text = text_beside(path, [stem + suffix for suffix in SUFFIXES if os.path.exists(stem + suffix)])
                yield Entry(path=path, name=storable(path), claimed=_is_claimed(path), text_path=_text_of(path, text))
        return
    from fsspec.utils import glob_translate

    root = to_path(re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0])
    wanted = re.compile(glob_translate(pattern.removeprefix(f"{root}/")))
    for name, item, text in _files(root):
        if wanted.fullmatch(name):
            path = f"{root}/{name}"
            text_path = None if text is None else f"{root}/{text}"
            yield Entry(path=path, name=path, claimed=_is_claimed(name), stamp=item.stamp, text_path=text_path)


def storable(name: str) -> str:
    """A file name that can be stored as UTF-8, undecodable bytes as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_claimed(name: str) -> bool:
    return has_suffix(name) or name.endswith(".tar")


def _text_of(name: str, text: str | None) -> str | None:
    """The text beside a recording; beside anything else there is none."""
    return text if has_suffix(name) else None


class _LocalWalk:
    """A walk through the folders of this machine; of those that links lead to it remembers which it has entered."""

    def __init__(self, root: Path) -> None:
        self.root, self.real = root, os.path.realpath(root)
        self.entered: dict[str, str] = {}

    def folder(self, folder: str, real: str | None = None) -> Iterator[Entry]:
        """Files of a folder below the root and below it, by name.

        Args:
            real: where it lies, if a link led out of the root.
        """
        where = os.path.join(self.root, folder)
        try:
            found = list(os.scandir(where))
        except (FileNotFoundError, PermissionError) as error:
            if not folder:
                raise
            detail = f"folder: {error.strerror}"
            yield Entry(path=where, name=storable(folder) + "/", problem="no_permission", detail=detail)
            return
        # A folder sorts by its name with the slash, so that the whole comes in the order of complete names.
        items = [(item.name + "/" * _is_folder(item), item) for item in found]
        names = {item.name for item in found}
        for name, item in sorted(items, key=lambda pair: storable(pair[0])):
            inner = os.path.join(folder, item.name)
            if not name.endswith("/"):
                text = _text_of(item.name, text_beside(item.name, names))
                yield from self._file(item, inner, None if text is None else os.path.join(where, text))
            elif item.is_symlink() or real is not None:
                yield from self._elsewhere(item, inner)
            else:
                yield from self.folder(inner)

    def _file(self, item: "os.DirEntry[str]", name: str, text_path: str | None) -> Iterator[Entry]:
        broken = item.is_symlink() and not os.path.exists(item.path)
        if broken or os.path.isfile(item.path):
            yield Entry(
                path=item.path,
                name=storable(name),
                claimed=_is_claimed(name),
                problem="missing" if broken else None,
                detail="a link that leads nowhere or in a circle" if broken else "",
                text_path=text_path,
            )
        else:
            detail = "a pipe, socket or device"
            yield Entry(path="", name=storable(name), claimed=False, problem="not_audio", detail=detail)

    def _elsewhere(self, item: "os.DirEntry[str]", name: str) -> Iterator[Entry]:
        """Files of a folder that a link leads to, or that lies below one that a link led to."""
        real = os.path.realpath(item.path)
        if real != self.real and _lies_in(self.real, real):
            detail = f"a link to {real}, which IN lies in, is not followed"
            yield Entry(path="", name=storable(name) + "/", problem="folder_loop", detail=detail)
        elif _lies_in(real, self.real):
            detail = f"a link to {os.path.relpath(real, self.real)}/, which is read by that name"
            yield Entry(path="", name=storable(name) + "/", problem="same_folder", detail=storable(detail))
        elif real in self.entered:
            detail = f"a link to the folder that is read as {self.entered[real]}/"
            yield Entry(path="", name=storable(name) + "/", problem="same_folder", detail=detail)
        else:
            self.entered[real] = storable(name)
            yield from self.folder(name, real)


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link in a circle
        return False


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _walk_remote(root: Path) -> Iterator[Entry]:
    for name, item, text in _files(root):
        text_path = None if text is None else f"{root}/{text}"
        yield Entry(path=f"{root}/{name}", name=name, claimed=_is_claimed(name), stamp=item.stamp, text_path=text_path)


def _files(root: Path, folder: str = "") -> Iterator[tuple[str, Listed, str | None]]:
    """(name below `root`, what the listing says, name of the text beside it) of every object, by name."""
    items = sorted(list_folder(root, folder), key=lambda item: item.name + "/" * item.is_folder)
    names = {item.name for item in items}
    for item in items:
        name = folder + item.name
        if item.is_folder:
            yield from _files(root, name + "/")
        elif not name.endswith("/"):
            # A name that ends in a slash is the empty object that consoles make to show a folder.
            text = _text_of(item.name, text_beside(item.name, names))
            yield name, item, None if text is None else folder + text
