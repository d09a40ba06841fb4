"""Counts of values on a fixed grid: sums of integers, so that merged ones do not depend on any order."""

from dataclasses import dataclass

import numpy as np

LARGEST_CELL = 32_767
"""Values beyond it count in the outermost cells."""


@dataclass(frozen=True, slots=True)
class GridCounts:
    """How many values lie in which cell. `cells`: int64 [K], ascending; `counts`: int64 [K], positive."""

    cells: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, cells_a_unit: int) -> "GridCounts":
        """Of values, float [N]; those that are not finite count for nothing."""
        cells = cell_of(values[np.isfinite(values)], cells_a_unit)
        return cls(*np.unique(cells, return_counts=True))

    def __add__(self, other: "GridCounts") -> "GridCounts":
        cells, place = np.unique(np.concatenate([self.cells, other.cells]), return_inverse=True)
        counts = np.zeros(len(cells), dtype=np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return GridCounts(cells, counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())


def cell_of(values: np.ndarray, cells_a_unit: int) -> np.ndarray:
    """The cell of every finite value, int64 [N]."""
    cells = np.rint(np.clip(values * cells_a_unit, -LARGEST_CELL, LARGEST_CELL))
    return np.asarray(cells, dtype=np.int64)


def weighted_median(values: np.ndarray, counts: np.ndarray) -> float:
    """Median of values [K] that occur `counts` [K] times each; the mean of the middle two where there are two."""
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    middle = [int(ends[-1] - 1) // 2, int(ends[-1]) // 2]
    low, high = np.searchsorted(ends, middle, side="right")
    return float(values[order[low]] + values[order[high]]) / 2
