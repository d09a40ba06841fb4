"""The files of an index, and how they are mapped.

An index is a folder: `index.json`, written last; one file `NAME.bin` a column, raw and little-endian; and
`texts/texts.jsonl`, a line a clip, `[clip id, transcript, [descriptions]]`. Columns are mapped into memory, so that all
ranks of a machine share one copy in the page cache; a line of texts is read by the rank that needs it.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from voxmill.core.errors import UserError
from voxmill.core.files import list_files
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import is_remote, raise_unavailable
from voxmill.data.records import from_json_text

FORMAT = 1
FILE, TEXTS = "index.json", "texts/texts.jsonl"
LONG_SECONDS = (30, 60, 180)
"""Lengths that the stages differ by (60 and 180, report 3.5), and what is recognised at once."""
CAP = 65_535
"""Tokens and patches are stored in 16 bits: a clip with as many or more is too long for every context."""
WIDTHS: dict[str, str] = {
    # One entry a clip.
    "seconds": "<f4",
    "patches": "<u2",
    "tokens": "<u2",
    "language": "<u2",
    "style": "<u2",
    "quality": "<f2",
    "modes": "|u1",
    "held_out": "|u1",
    "latent_shard": "<u4",
    "latent_offset": "<u8",
    "latent_size": "<u4",
    "latent_sha256": "|V8",
    # Where a clip's entries begin in the columns of other lengths, and where the last one's end.
    "text_starts": "<i8",
    "description_starts": "<i8",
    "reference_starts": "<i8",
    # One entry a usable description, and one a usable reference.
    "description_axis": "|u1",
    "description_tokens": "<u2",
    "references": "<u4",
    # One entry a clip that enters: clips of a group stand together.
    "group_clips": "<u4",
}
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Clips `group_clips[start:stop]`, all of one dataset, language and style and with the same modes (a bit mask).

    up_to: longest of their range of lengths in seconds, where the recipe has ranges.
    seconds_over: of those that are longer than each of `LONG_SECONDS`. longest: the clip of most patches.
    """

    dataset: int
    language: int
    style: int
    modes: int
    up_to: float | None
    start: int
    stop: int
    seconds: float
    seconds_over: tuple[float, ...]
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """What `index.json` holds. `made_from`: all that decided the content; `starts`: first clips of the datasets."""

    format: int = FORMAT
    made_from: dict[str, JsonValue]
    latent_space: str
    patch_size: int
    clips: int
    datasets: tuple[str, ...]
    starts: tuple[int, ...]
    languages: tuple[str, ...]
    styles: tuple[str, ...]
    shards: tuple[str, ...]
    """Paths of latent shards below their datasets; `latent_shard` numbers them."""
    left_out: dict[str, int]
    groups: tuple[Group, ...]
    sizes: dict[str, int]
    """Bytes of every other file."""


class Column(Generic[T]):
    """A column in its file: what is taken out of it has the width of a calculation, not that of the file."""

    def __init__(self, stored: NDArray[Any], kind: type[T]) -> None:
        self.stored, self._kind = stored, kind

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> T: ...
    @overload
    def __getitem__(self, key: Any) -> NDArray[T]: ...
    def __getitem__(self, key: Any) -> Any:
        return self.stored[key].astype(self._kind)

    def __iter__(self) -> Iterator[T]:
        return iter(self[:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.stored.astype(self._kind if dtype is None else dtype)


def read_facts(folder: Path) -> IndexFacts:
    """`index.json` of an index.

    Raises:
        UserError: there is none, it is of another version, or a file beside it is not as long as it states.
    """
    try:
        content = (folder / FILE).read_bytes()
    except OSError as error:
        raise_unavailable(error)
        raise UserError(f"{folder}: holds no index; run: voxmill index RECIPE -o {folder}") from None
    try:
        facts = from_json_text(IndexFacts, content)
    except ValueError as error:
        raise UserError(f"{folder / FILE}: cannot be read ({str(error).splitlines()[0]}); remove {folder}") from None
    if facts.format != FORMAT:
        raise UserError(f"{folder}: an index of format {facts.format}, this voxmill reads {FORMAT}; remove it")
    listed = {file.name: file.size for file in list_files(folder)} if is_remote(folder) else None
    for name, size in facts.sizes.items():
        if (_size(folder / name) if listed is None else listed.get(name)) != size:
            raise UserError(f"{folder / name}: not the {size} bytes that index.json states; remove {folder}")
    return facts


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def map_columns(folder: Path, facts: IndexFacts) -> dict[str, NDArray[Any]]:
    """The columns by name, mapped read-only; of an index in object storage from a copy on this machine.

    Raises:
        OSError: they cannot be read or copied.
    """
    here = local_copy(folder)
    return {name: map_file(here / f"{name}.bin", width) for name, width in WIDTHS.items()}


def map_file(path: Path, width: str, *, writable: bool = False) -> NDArray[Any]:
    """A file of numbers as an array that is no part of this process's own memory."""
    if not path.stat().st_size:
        return np.empty(0, dtype=width)
    # As a plain array: taking from a `memmap` would look up its file each time.
    return np.asarray(np.memmap(path, dtype=width, mode="r+" if writable else "r"))


def map_texts(folder: Path) -> mmap.mmap | None:
    """`texts.jsonl` on this machine, mapped; None where it is empty or in object storage."""
    if is_remote(folder) or not (folder / TEXTS).stat().st_size:
        return None
    with open(folder / TEXTS, "rb") as file:
        texts = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Clips are drawn at random: what lies behind one is not wanted.
    texts.madvise(mmap.MADV_RANDOM)
    return texts
