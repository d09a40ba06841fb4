"""The clips of a stream: slices of the corpus' groups, as one sequence that takes no memory. Free of torch."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Slice = tuple[int, int]


class ClipSlices:
    """Clip numbers at `slices` of a corpus' `group_clips`, one slice after another."""

    def __init__(self, group_clips: NDArray[Any], slices: Sequence[Slice]) -> None:
        self.group_clips, self.slices = group_clips, tuple(slices)
        lengths = np.array([stop - start for start, stop in slices], dtype=np.int64)
        self._ends = np.cumsum(lengths)
        self._shifts = np.array([start for start, _ in slices], dtype=np.int64) - (self._ends - lengths)
        """What is added to a place in the sequence to have the place in `group_clips`."""

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, place: int | np.integer[Any]) -> np.int64: ...
    @overload
    def __getitem__(self, place: NDArray[Any]) -> NDArray[np.int64]: ...
    def __getitem__(self, place: Any) -> Any:
        """The clips at places from 0 on."""
        places = np.asarray(place).astype(np.int64)
        if places.size and (places.min() < 0 or places.max() >= len(self)):
            raise IndexError(f"places 0 to {len(self) - 1}, asked for {places.min()} to {places.max()}")
        which = np.searchsorted(self._ends, places, side="right")
        return self.group_clips[places + self._shifts[which]].astype(np.int64)

    def __iter__(self) -> Iterator[np.int64]:
        return (np.int64(clip) for clip in self.tolist())

    def tolist(self) -> list[int]:
        """All of them; of a small corpus."""
        return [int(clip) for start, stop in self.slices for clip in self.group_clips[start:stop]]
