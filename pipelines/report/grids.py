"""Counts on fixed grids: they add up exactly in any order, and quantiles are read off them to half a cell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

# What is left of float32's mantissa in a `rough_cell`: 32 cells an octave, so a cell's middle is within 1.6 %.
_DROPPED_BITS = 23 - 5

Row = TypeVar("Row")
Key = TypeVar("Key", str, tuple[str, ...], int)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of consecutive cells, from cell `first` on; without leading and trailing zeros."""

    first: int = 0
    counts: tuple[int, ...] = ()

    def __add__(self, other: "Counts") -> "Counts":
        if not self.counts or not other.counts:
            return self if self.counts else other
        first = min(self.first, other.first)
        total = np.zeros(max(self.first + len(self.counts), other.first + len(other.counts)) - first, np.int64)
        for part in (self, other):
            total[part.first - first : part.first - first + len(part.counts)] += np.asarray(part.counts, np.int64)
        return Counts(first, tuple(total.tolist()))

    @property
    def total(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Grid:
    """`cells` equal cells of `step` from `low` on; values outside count in the first or the last one."""

    low: float
    step: float
    cells: int

    def cell(self, values: np.ndarray) -> np.ndarray:
        """The cell of each value, int64; NaN has none and must not be among them."""
        # A value on a border belongs to the upper cell, also where dividing by the step ends just below it.
        return np.clip(np.floor((values - self.low) / self.step + 1e-9), 0, self.cells - 1).astype(np.int64)

    def count(self, values: np.ndarray) -> Counts:
        """Counts of the finite values."""
        cells = self.cell(values[np.isfinite(values)])
        if not cells.size:
            return Counts()
        first = int(cells.min())
        return Counts(first, tuple(np.bincount(cells - first).tolist()))

    def quantile(self, counts: Counts, share: float) -> float | None:
        """The value below which `share` of what was counted lies, to half a step; None where nothing was."""
        place = share * (counts.total - 1)
        if place < 0:
            return None
        ends = np.cumsum(counts.counts)
        below, above = np.searchsorted(ends, [np.floor(place), np.ceil(place)], side="right")
        return float(self.low + (counts.first + (below + above) / 2 + 0.5) * self.step)


def rough_cells(values: np.ndarray) -> np.ndarray:
    """Cells of values of any scale, int64, in the values' order: 32 an octave."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -((bits & 0x7FFFFFFF) >> _DROPPED_BITS), bits >> _DROPPED_BITS)


def rough_median(counts: Mapping[int, int]) -> float | None:
    """The median of values that were counted by `rough_cells`, to 1.6 %."""
    if not counts:
        return None
    cells = sorted(counts)
    ends = np.cumsum([counts[cell] for cell in cells])
    place = (int(ends[-1]) - 1) / 2
    below, above = np.searchsorted(ends, [np.floor(place), np.ceil(place)], side="right")
    return (_middle(cells[int(below)]) + _middle(cells[int(above)])) / 2


def _middle(cell: int) -> float:
    if cell == 0:
        return 0.0
    bits = np.array([abs(cell) << _DROPPED_BITS | 1 << (_DROPPED_BITS - 1)], np.int32)
    return float(np.copysign(bits.view(np.float32)[0], cell))


def merge_rows(
    a: tuple[Row, ...], b: tuple[Row, ...], key: Callable[[Row], Key], add: Callable[[Row, Row], Row]
) -> tuple[Row, ...]:
    """Rows of both by key, sorted by it; rows of one key are added."""
    rows = {key(row): row for row in a}
    for row in b:
        name = key(row)
        rows[name] = add(rows[name], row) if name in rows else row
    return tuple(rows[name] for name in sorted(rows))
