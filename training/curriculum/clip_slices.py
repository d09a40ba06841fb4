"""The clips of a stream: slices of the corpus' sorted groups, as one sequence that takes no memory."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from training.curriculum.corpus import Corpus

Slice = tuple[int, int]


class GroupSlices:
    """Clip numbers at `slices` of a corpus' `group_clips`, one slice after another; in each the shortest clip first."""

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


class ClipSlices(GroupSlices):
    """The same of a corpus whose lengths are known."""

    def __init__(self, corpus: "Corpus", slices: Sequence[Slice]) -> None:
        super().__init__(corpus.group_clips, slices)
        self._corpus = corpus

    @property
    def seconds(self) -> float:
        """Of all of them together."""
        return sum(self._corpus.group_seconds(start, stop) for start, stop in self.slices)

    def seconds_over(self, seconds: float) -> float:
        """Of those that are longer than this."""
        return sum(
            self._corpus.group_seconds(self._place_after(seconds, start, stop), stop) for start, stop in self.slices
        )

    def longest(self) -> list[int]:
        """The longest clip of each slice."""
        return [int(self.group_clips[stop - 1]) for _, stop in self.slices]

    def up_to(self, bounds: Sequence[float]) -> list["ClipSlices | None"]:
        """The clips of up to each bound in seconds and above the one before; None where there are none.

        Args:
            bounds: rising; clips longer than the last are in no part.
        """
        parts: list[list[Slice]] = [[] for _ in bounds]
        for start, stop in self.slices:
            first = start
            for number, bound in enumerate(bounds):
                last = self._place_after(bound, first, stop)
                if last > first:
                    parts[number].append((first, last))
                first = last
        return [ClipSlices(self._corpus, part) if part else None for part in parts]

    def _place_after(self, seconds: float, start: int, stop: int) -> int:
        """The first place between these whose clip is longer. Compared in the precision of the column."""
        clips, lengths = self.group_clips, self._corpus.seconds
        limit = float(np.float32(seconds))
        return bisect_right(range(stop), limit, start, stop, key=lambda place: float(lengths[clips[place]]))
