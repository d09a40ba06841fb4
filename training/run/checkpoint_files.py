"""The files of a checkpoint: what each rank writes, and whether what is there is what was written."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from voxmill.core.errors import UserError
from voxmill.core.files import list_files
from voxmill.core.hashing import sha256_bytes, sha256_file
from voxmill.core.sharded_tensors import (
    Extent,
    Fragment,
    WrittenFile,
    extents_of,
    rank_file,
    write_fragments,
)
from voxmill.core.storage import is_remote, raise_unavailable, read_whole

MANIFEST, STATE = "manifest.json", "state.json"
FORMAT = 3
"""Of `state.json` and the layout around it; a checkpoint of another format cannot be resumed."""
MANIFEST_JSON = TypeAdapter(dict[str, WrittenFile])


class Part:
    """The files that one rank adds to a checkpoint, in `folder`: each is hashed and named in the manifest."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.files: dict[str, WrittenFile] = {}
        """By their names from the checkpoint's folder."""
        self.extents: dict[str, list[Extent]] = {}
        """What the rank's file of tensors has, by the folder that it is in."""
        self.kinds: dict[str, list[str]] = {}

    def add_tensors(self, fragments: Sequence[Fragment], folder: str = "") -> None:
        """Writes the rank's stretches of tensors, whose other stretches other ranks add, and the index of all.

        Args:
            folder: below the checkpoint's; all ranks name the same ones.
        """
        name = f"{folder}/{rank_file(self.rank)}".lstrip("/")
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        self.files[name] = write_fragments(self.folder / name, fragments)
        self.extents[folder] = extents_of(fragments)
        self.kinds[folder] = list(fragments[0].tensors) if fragments else []

    def add_file(self, name: str) -> None:
        """A file that lies in `folder` by that name already, and that this rank alone adds."""
        self.files[name] = WrittenFile(sha256=sha256_file(self.folder / name), size=(self.folder / name).stat().st_size)

    def add_text(self, name: str, content: str | bytes) -> None:
        """Writes a file that this rank alone adds; text as UTF-8."""
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        self.add_file(name)


def refuse_old_format(path: Path, content: bytes) -> None:
    """Raises UserError where a checkpoint's `state.json` is not of today's format, ValueError where it is no object."""
    state = json.loads(content)
    if not isinstance(state, dict):
        raise ValueError(f"{STATE} holds no object")
    if state.get("format") != FORMAT:
        raise UserError(
            f"{path}: a checkpoint of another version, which cannot be resumed; start again in an empty OUT"
        )


def damage(path: Path, *, rank: int = 0, world: int = 1) -> str:
    """Why a checkpoint cannot be used, or "". In object storage, which alters no file, of tensors the size is checked.

    Args:
        rank, world: of `world` ranks, each of which checks its share of the files.

    Raises:
        UserError: it is not damaged but of an older version.
    """
    old = path / "training" / STATE
    try:
        if old.is_file() and not (path / MANIFEST).exists():
            refuse_old_format(path, old.read_bytes())
        try:
            manifest = MANIFEST_JSON.validate_json((path / MANIFEST).read_bytes())
        except ValidationError:
            refuse_old_format(path, (path / STATE).read_bytes())
            return f"not whole (its {MANIFEST} cannot be read)"
        if STATE not in manifest:
            return f"not whole (no {STATE} in its manifest)"
        if any(name.startswith("/") or ".." in name.split("/") for name in manifest):
            return "its manifest names files outside it"
        sizes = {file.name: file.size for file in list_files(path)}
        for name, file in manifest.items():
            if name not in sizes:
                return f"not whole (without {name})"
            if sizes[name] != file.size:
                return f"{name} was altered or cut off"
        for name in list(manifest)[rank::world]:
            if is_remote(path):
                intact = name.endswith(".safetensors") or sha256_bytes(read_whole(path / name)) == manifest[name].sha256
            else:
                intact = sha256_file(path / name) == manifest[name].sha256
            if not intact:
                return f"{name} was altered or cut off"
        return ""
    except (OSError, ValueError) as error:
        raise_unless_here(path, error)
        return f"not whole ({error})"


def raise_unless_here(path: Path, error: Exception) -> None:
    """A store that does not answer has the checkpoint; what a disk of this machine cannot read is lost."""
    if is_remote(path):
        raise_unavailable(error)
