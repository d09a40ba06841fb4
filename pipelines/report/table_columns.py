"""Columns of an index as NumPy arrays, whatever columns it lacks, and rows by their values."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from voxmill.core.hashing import short_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TableColumns:
    """A table's columns as NumPy arrays; an absent one, or one without a type, is null throughout."""

    def __init__(self, table: pa.Table):
        self.table, self.num_rows = table, table.num_rows
        self._draws: NDArray[np.int64] | None = None

    def _array(self, name: str, kind: pa.DataType) -> pa.Array:
        """A column, or a field of a struct (`quality.snr_db`), as one array of `kind`."""
        column, _, inner = name.partition(".")
        if column not in self.table.column_names:
            return pa.nulls(self.num_rows, kind)
        array = self.table[column].combine_chunks()
        if inner:
            fields = [field.name for field in array.type] if pa.types.is_struct(array.type) else []
            if inner not in fields:
                return pa.nulls(self.num_rows, kind)
            array = pc.struct_field(array, inner)
        return array.cast(kind)

    def floats(self, name: str) -> "NDArray[np.float64]":
        """Float64 with NaN for null."""
        return np.asarray(self._array(name, pa.float64()).to_numpy(zero_copy_only=False), np.float64)

    def texts(self, name: str) -> "NDArray[np.object_]":
        """Text with "" for null."""
        return np.asarray(self._array(name, pa.string()).fill_null("").to_numpy(zero_copy_only=False), object)

    def microseconds(self) -> "NDArray[np.int64]":
        """`duration` in whole microseconds; 0 for null."""
        return np.rint(np.nan_to_num(self.floats("duration"), posinf=0.0, neginf=0.0) * 1e6).astype(np.int64)

    def list_lengths(self, name: str) -> "NDArray[np.int64]":
        """Entries of a list; 0 for null."""
        if name not in self.table.column_names or pa.types.is_null(self.table[name].type):
            return np.zeros(self.num_rows, np.int64)
        lengths = pc.list_value_length(self.table[name]).fill_null(0)
        return np.asarray(lengths.to_numpy(), np.int64)

    def draws(self) -> "NDArray[np.int64]":
        """A hash of each clip's name, 0..2^32 - 1."""
        if self._draws is None:
            self._draws = np.fromiter(map(draw, self.texts("clip_id")), np.int64, self.num_rows)
        return self._draws

    def is_stored(self) -> "NDArray[np.bool_]":
        """Whether a clip's audio has a place."""
        return np.asarray(self.texts("shard") != "", bool) & np.isfinite(self.floats("offset"))


def draw(clip_id: str) -> int:
    """A hash of a clip's name, 0..2^32 - 1: an order that has nothing to do with what is in it."""
    return short_hash(clip_id, 4)


def finite_or_none(value: float) -> float | None:
    """The value; None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def groups(*columns: "NDArray[np.object_]") -> "Iterator[tuple[tuple[str, ...], NDArray[np.int64]]]":
    """Row numbers by the values of the columns, sorted by these."""
    if not len(columns[0]):
        return
    codes = np.zeros(len(columns[0]), np.int64)
    values = []
    for column in columns:
        some, inverse = np.unique(column, return_inverse=True)
        codes = codes * len(some) + inverse
        values.append(some)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        code, names = int(codes[order[start]]), []
        for some in reversed(values):
            code, place = divmod(code, len(some))
            names.append(str(some[place]))
        yield tuple(reversed(names)), order[start:end]
