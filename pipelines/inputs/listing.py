"""Recordings in a folder or below a prefix, and what a pattern matches, in the order of their names.

Folder by folder, so that no more than one folder's names are in memory, whatever the size of the whole.
"""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.inputs.entries import Entry, has_suffix
from voxmill.core.storage import Listed, is_remote, list_folder, to_path


def walk(root: Path) -> Iterator[Entry]:
    """Every recording in a folder and below it, by name."""
    return _walk_remote(root) if is_remote(root) else _walk_local(root, "")


def matches(pattern: str) -> Iterator[Entry]:
    """Recordings whose paths match a pattern: `*`, `?`, `[...]` in a name, `**` for folders at any depth.

    Raises:
        UserError: an unknown scheme.
    """
    if "://" not in pattern:
        for path in sorted(glob.glob(pattern, recursive=True)):
            if has_suffix(path) or path.endswith(".tar"):
                yield Entry(path=path, name=storable(path))
        return
    from fsspec.utils import glob_translate

    root = to_path(re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0])
    wanted = re.compile(glob_translate(pattern.removeprefix(f"{root}/")))
    for name, item in _files(root):
        if wanted.fullmatch(name) and (has_suffix(name) or name.endswith(".tar")):
            yield Entry(path=f"{root}/{name}", name=f"{root}/{name}", stamp=item.stamp)


def storable(name: str) -> str:
    """A file name that can be stored as UTF-8, undecodable bytes as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk_local(root: Path, folder: str) -> Iterator[Entry]:
    try:
        found = list(os.scandir(os.path.join(root, folder)))
    except OSError as error:
        if not folder:
            raise
        where = os.path.join(root, folder)
        yield Entry(
            path=where, name=storable(folder) + "/", problem="no_permission", detail=f"folder: {error.strerror}"
        )
        return
    # A folder sorts by its name with the slash, so that the whole comes in the order of complete names.
    items = [(item.name + "/" * item.is_dir(follow_symlinks=False), item) for item in found]
    for name, item in sorted(items, key=lambda pair: storable(pair[0])):
        inner = os.path.join(folder, item.name)
        if name.endswith("/"):
            yield from _walk_local(root, inner)
        elif has_suffix(name) and not os.path.isdir(item.path):
            broken = item.is_symlink() and not os.path.exists(item.path)
            yield Entry(
                path=item.path,
                name=storable(inner),
                problem="missing" if broken else None,
                detail="a link that leads nowhere or in a circle" if broken else "",
            )


def _walk_remote(root: Path) -> Iterator[Entry]:
    for name, item in _files(root):
        if has_suffix(name):
            yield Entry(path=f"{root}/{name}", name=name, stamp=item.stamp)


def _files(root: Path, folder: str = "") -> Iterator[tuple[str, Listed]]:
    """(name below `root`, what the listing says) of every object below a prefix, by name."""
    for item in sorted(list_folder(root, folder), key=lambda item: item.name + "/" * item.is_folder):
        name = folder + item.name
        if item.is_folder:
            yield from _files(root, name + "/")
        elif not name.endswith("/"):
            # A name that ends in a slash is the empty object that consoles make to show a folder.
            yield name, item
