"""Named fp32 tensors over several safetensors files, each of which holds flat slices; an index says what lies where.

    FOLDER/tensors.json            {"kinds": [...], "files": [...], "tensors": {NAME: [SHAPE, [[FILE, START, LENGTH]]]}}
    FOLDER/rank-00000.safetensors  for each kind `KIND/NAME`: elements START to START + LENGTH of the flat tensor

Many processes write the files, each what it holds, and any number of others read them: by ranges, from a path or a
URI, no more than they hold themselves. Files are written and hashed in one pass and without a second copy in memory,
which safetensors' own functions would make.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter, ValidationError

from voxmill.core.errors import UserError
from voxmill.core.storage import is_remote, read_range, read_ranges, read_whole

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "tensors.json"
SPAN_BYTES, BATCH_BYTES = 16 << 20, 64 << 20
"""Of one ranged read, and of those that are under way together."""
ITEM = 4
"""Bytes of an element."""
_FILE = re.compile(r"rank-\d+\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A stretch of one tensor, flat: `tensors` are its fp32 elements from `start` on, [length] each, by kind."""

    name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: int
    tensors: "Mapping[str, Tensor]"

    @property
    def length(self) -> int:
        """Elements."""
        return next(iter(self.tensors.values())).numel()

    @property
    def num_bytes(self) -> int:
        """Of all kinds."""
        return ITEM * self.length * len(self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """sha256 (hex) and size in bytes of a file as it was written."""

    sha256: str
    size: int


def rank_file(rank: int) -> str:
    """Name of the file that a rank writes."""
    return f"rank-{rank:05d}.safetensors"


def write_fragments(path: Path, fragments: Sequence[Fragment]) -> WrittenFile:
    """Writes a safetensors file on this machine, and syncs it.

    Args:
        fragments: on the CPU, contiguous.

    Raises:
        OSError: it cannot be written.
    """
    import torch

    slices = [(f"{kind}/{item.name}", tensor) for item in fragments for kind, tensor in item.tensors.items()]
    header, offset = dict[str, object](), 0
    for key, tensor in slices:
        assert tensor.dtype == torch.float32 and tensor.dim() == 1 and key not in header
        end = offset + ITEM * tensor.numel()
        header[key] = {"dtype": "F32", "shape": [tensor.numel()], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of eight bytes
    digest, size = hashlib.sha256(), 0
    # Unbuffered: a tensor goes to the file as it lies in memory.
    with open(path, "wb", buffering=0) as file:
        head = memoryview(len(text).to_bytes(8, "little") + text)
        for content in (head, *(_bytes_of(tensor) for _, tensor in slices)):
            digest.update(content)
            left = content
            while left:
                left = left[file.write(left) :]
            size += len(content)
        os.fsync(file.fileno())
    return WrittenFile(sha256=digest.hexdigest(), size=size)


def _bytes_of(tensor: "Tensor") -> memoryview:
    return memoryview(tensor.numpy().data).cast("B") if tensor.numel() else memoryview(b"")


class Extent(NamedTuple):
    """What a file has of a tensor: its name, shape, and elements `start` to `start + length`."""

    name: str
    shape: tuple[int, ...]
    start: int
    length: int


def extents_of(fragments: Sequence[Fragment]) -> list[Extent]:
    """What a file of these has."""
    return [Extent(item.name, item.shape, item.start, item.length) for item in fragments]


def index_text(kinds: Sequence[str], extents: Mapping[str, Sequence[Extent]]) -> str:
    """The index of files by name and what each has; every tensor has the same kinds."""
    tensors: dict[str, tuple[tuple[int, ...], list[tuple[int, int, int]]]] = {}
    for number, found in enumerate(extents.values()):
        for extent in found:
            tensors.setdefault(extent.name, (extent.shape, []))[1].append((number, extent.start, extent.length))
    return json.dumps({"kinds": list(kinds), "files": list(extents), "tensors": tensors}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class _Index:
    kinds: list[str]
    files: list[str]
    tensors: dict[str, tuple[tuple[int, ...], list[tuple[int, int, int]]]]


_INDEX_JSON = TypeAdapter(_Index)


class Wanted(NamedTuple):
    """Elements of a tensor from `start` on that are read into `target`, flat fp32 [length] on any device."""

    kind: str
    name: str
    start: int
    target: "Tensor"


@dataclass(frozen=True, slots=True)
class _Piece:
    offset: int
    """In the file, bytes."""
    target: "Tensor"

    @property
    def end(self) -> int:
        return self.offset + ITEM * self.target.numel()


@dataclass(slots=True)
class _Span:
    """Pieces that follow one another in a file."""

    pieces: list[_Piece] = field(default_factory=list)

    @property
    def place(self) -> tuple[int, int]:
        return self.pieces[0].offset, self.pieces[-1].end - self.pieces[0].offset


class ShardedTensors:
    """What was written into a folder, read by ranges.

    Args:
        folder: a local path or a URI.

    Raises:
        UserError: its index is damaged. OSError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = _INDEX_JSON.validate_json(read_whole(folder / INDEX))
        except ValidationError as error:
            raise UserError(f"{folder / INDEX}: damaged ({error.errors()[0]['msg']})") from None
        self.kinds, self.files, self._tensors = tuple(index.kinds), index.files, index.tensors
        self._headers: dict[str, dict[str, tuple[int, int]]] = {}
        wrong = next((name for name in self.files if not _FILE.fullmatch(name)), None)
        if wrong is not None:
            raise UserError(f"{folder / INDEX}: names {wrong!r}, which is no file of a rank")
        for name, (shape, parts) in self._tensors.items():
            # Sorted once: the parts of a tensor cover it without a gap and none twice.
            parts.sort(key=lambda part: (part[1], part[2]))
            end = 0
            for number, start, length in parts:
                if start != end or length < 0 or not 0 <= number < len(self.files):
                    raise UserError(f"{folder / INDEX}: {name} has no elements from {end} on")
                end += length
            if end != math.prod(shape):
                raise UserError(f"{folder / INDEX}: {name} ends after {end} of {math.prod(shape)} elements")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name."""
        return {name: shape for name, (shape, _) in self._tensors.items()}

    def whole(self, kind: str) -> "Iterator[tuple[str, Tensor]]":
        """(name, fp32 tensor on the CPU) of one kind, read one by one."""
        import torch

        for name, shape in self.shapes.items():
            tensor = torch.empty(math.prod(shape))
            self.read_into([Wanted(kind, name, 0, tensor)])
            yield name, tensor.view(shape)

    def read_into(self, wanted: Iterable[Wanted]) -> None:
        """Reads all that is wanted and nothing else.

        Raises:
            UserError: a file is damaged, or a tensor is not there. OSError: a file cannot be read, or ends too early.
        """
        pieces: dict[str, list[_Piece]] = {}
        for want in wanted:
            for file, piece in self._pieces(want):
                pieces.setdefault(file, []).append(piece)
        for file, found in pieces.items():
            batch, size = list[_Span](), 0
            for span in _spans(sorted(found, key=lambda piece: piece.offset)):
                batch, size = [*batch, span], size + span.place[1]
                if size >= BATCH_BYTES:
                    self._read(file, batch)
                    batch, size = [], 0
            self._read(file, batch)

    def _pieces(self, want: Wanted) -> Iterator[tuple[str, _Piece]]:
        end, step = want.start + want.target.numel(), SPAN_BYTES // ITEM
        if want.kind not in self.kinds or want.name not in self._tensors:
            raise UserError(f"{self.folder}: has no {want.kind} of {want.name}")
        shape, parts = self._tensors[want.name]
        assert end <= math.prod(shape), f"{want.name} has {math.prod(shape)} elements, not {end}"
        for number, start, length in parts:
            first, last = max(start, want.start), min(start + length, end)
            if first >= last:
                continue
            file = self.files[number]
            offset, count = self._header(file).get(f"{want.kind}/{want.name}", (0, -1))
            if count != length:
                raise UserError(f"{self.folder / file}: has not the {want.kind} of {want.name} that {INDEX} says")
            for begin in range(first, last, step):
                target = want.target[begin - want.start : min(begin + step, last) - want.start]
                yield file, _Piece(offset + ITEM * (begin - start), target)

    def _header(self, file: str) -> dict[str, tuple[int, int]]:
        """(offset in the file, number of elements) of each slice in it."""
        if file not in self._headers:
            path = self.folder / file
            size = int.from_bytes(read_range(path, 0, 8), "little")
            try:
                entries = json.loads(read_range(path, 8, size))
                self._headers[file] = {
                    key: (8 + size + int(value["data_offsets"][0]), int(value["shape"][0]))
                    for key, value in entries.items()
                    if key != "__metadata__"
                }
            except (ValueError, TypeError, LookupError, OverflowError, MemoryError):
                raise UserError(f"{path}: damaged; its header cannot be read") from None
        return self._headers[file]

    def _read(self, file: str, spans: Sequence[_Span]) -> None:
        import torch

        path = self.folder / file
        if not is_remote(path):
            with open(path, "rb", buffering=0) as local:
                for piece in (piece for span in spans for piece in span.pieces):
                    _read_into(local, piece)
            return
        contents = read_ranges(path, [span.place for span in spans])
        for span, content in zip(spans, contents, strict=True):
            first, size = span.place
            if len(content) != size:
                raise OSError(f"{path} ends before byte {first + size}")
            values = torch.frombuffer(bytearray(content), dtype=torch.float32)
            for piece in span.pieces:
                begin = (piece.offset - first) // ITEM
                piece.target.copy_(values[begin : begin + piece.target.numel()])


def _read_into(file: FileIO, piece: _Piece) -> None:
    """Straight into the target where it is on the CPU."""
    target = piece.target
    place = target if target.device.type == "cpu" else target.new_empty(target.shape, device="cpu")
    left = _bytes_of(place)
    file.seek(piece.offset)
    while left:
        count = file.readinto(left)
        if not count:
            raise OSError(f"{file.name!s} ends before byte {piece.end}")
        left = left[count:]
    if place is not target:
        target.copy_(place)


def _spans(pieces: Iterable[_Piece]) -> Iterator[_Span]:
    span = _Span()
    for piece in pieces:
        follows = bool(span.pieces) and span.pieces[-1].end == piece.offset and span.place[1] < SPAN_BYTES
        if span.pieces and not follows:
            yield span
            span = _Span()
        span.pieces.append(piece)
    if span.pieces:
        yield span
