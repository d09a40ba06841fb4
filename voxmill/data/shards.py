"""The shard format: plain WebDataset tars with a Parquet index beside them. Free of Ray; trainers read through it.

A tar is written once: temporary name, close, fsync, rename. The same members give the same bytes.
"""

import dataclasses
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from voxmill.core.files import make_parents, publish, temporary_beside
from voxmill.core.hashing import sha256_bytes
from voxmill.core.storage import is_remote, read_range

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor


@dataclass(frozen=True)
class Member:
    """Where one file lies in its tar; offset and size in bytes of the content itself."""

    name: str
    offset: int
    size: int
    sha256: str


class TarWriter:
    """Writes a tar whose bytes depend on names and contents alone; it appears under its name only when complete.

    Args:
        path: where it will lie.
        named_by_content: puts the first twelve digits of the tar's own sha256 before the suffix; `path` has the whole
            name afterwards.
    """

    def __init__(self, path: Path, named_by_content: bool = False):
        self.path, self.sha256, self.size = path, "", 0
        self._by_content = named_by_content
        make_parents(path)
        self._temporary = temporary_beside(path)
        self._file = _HashingFile(self._temporary)
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115

    def add(self, name: str, content: bytes) -> Member:
        """Appends one member and returns where it lies."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o644
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(content))
        return Member(name, offset, len(content), sha256_bytes(content))

    def __enter__(self) -> "TarWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        complete = False
        try:
            if kind is None:
                self._tar.close()
                self.sha256, self.size = self._file.hash.hexdigest(), self._file.tell()
                complete = True
        finally:
            self._file.close()
            if not complete:
                self._temporary.unlink(missing_ok=True)
        if complete:
            if self._by_content:
                self.path = self.path.with_name(f"{self.path.stem}-{self.sha256[:12]}{self.path.suffix}")
            publish(self._temporary, self.path)


class _HashingFile:
    """A file that is only appended to, and the sha256 of what went in."""

    def __init__(self, path: Path):
        self._file = open(path, "wb")  # noqa: SIM115 - closed by its owner
        self.hash = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.hash.update(content)
        return self._file.write(content)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def read_member(out: Path, shard: str, offset: int, size: int) -> bytes:
    """Content of one member by its index row. Raises ValueError for a shard path that leaves `out`."""
    return read_range(path_inside(out, shard), offset, size)


def shard_exists(out: Path, shard: str) -> bool:
    """Whether a shard is there; a path that leaves `out` is none."""
    try:
        return path_inside(out, shard).is_file()
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def path_inside(out: Path, shard: str, *, follow_symlinks: bool = False) -> Path:
    """Where a shard lies. Raises ValueError for one that leaves `out`.

    Args:
        follow_symlinks: whether links on the way may lead out of it, as where `latents/` lies on another disk; a path
            that leaves it by itself never may.
    """
    # A trainer reads a shard hundreds of times; resolving its path took a third of each (`benchmarks/loader.py`).
    if follow_symlinks or is_remote(out):
        if shard.startswith("/") or ".." in shard.split("/"):
            raise ValueError(f"shard {shard!r} leaves {out}")
        return out / shard
    path = (out / shard).resolve()
    if not path.is_relative_to(out.resolve()):
        raise ValueError(f"shard {shard!r} leaves {out}")
    return path


def latent_bytes(latent_LD: "Tensor") -> bytes:
    """The content of a `{clip_id}.safetensors` member: one bf16 tensor `latent` of L frames and D channels."""
    import torch
    from safetensors.torch import save

    return save({"latent": latent_LD.to(torch.bfloat16).contiguous()})


def read_latent(out: Path, shard: str, offset: int, size: int, sha256: str | None = None) -> "Tensor":
    """Latents [L, D], bf16, of one clip by its row of `latents.parquet`.

    Raises:
        ValueError: what lies there is not what the index states, or the shard's path leaves `out`.
        OSError: the shard cannot be read.
    """
    content = read_member(out, shard, offset, size)
    if sha256 is not None and sha256_bytes(content) != sha256:
        raise ValueError(f"{shard}: the {size} bytes at {offset} are not those that latents.parquet names")
    return tensor_of(content, f"{shard} at {offset}")


def tensor_of(content: bytes, place: str) -> "Tensor":
    """Latents [L, D], bf16, of what `latent_bytes` gave.

    Raises:
        ValueError: it is something else; names the place.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)["latent"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{place}: no latents ({error})") from None


def to_json(value: object) -> bytes:
    """Canonical JSON: sorted keys, floats as Python prints them, dataclasses as objects, UTF-8."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_by_field)
    return text.encode()


def _by_field(record: "DataclassInstance") -> dict[str, object]:
    names = _FIELD_NAMES.get(type(record))
    if names is None:
        # Raises TypeError for what is no dataclass.
        names = _FIELD_NAMES[type(record)] = tuple(field.name for field in dataclasses.fields(record))
    return {name: getattr(record, name) for name in names}


_FIELD_NAMES: dict[type, tuple[str, ...]] = {}
