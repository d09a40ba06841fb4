"""Best-fit packing into a position budget, without padding (design decision 8).

Samples wait in a window. A row starts with the one that has waited longest, so none starves, and is then filled with
the longest that still fits. Rows are made one after another from one global order; a step is a fixed number of rows,
which the ranks divide equally, so every rank has the same number of micro-batches by construction.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that takes `length` positions."""

    @property
    def length(self) -> int:
        """Positions in a packed row."""
        ...


Item = TypeVar("Item", bound=Sized)


class Packer(Generic[Item]):
    """Rows of at most `budget` positions out of a window of waiting items.

    Args:
        budget: positions a row.
        window: items that wait at most; 1024 fills rows to about 99 % (`benchmarks/packing.py`).
    """

    def __init__(self, budget: int, window: int, waiting: Iterable[Item] = ()) -> None:
        self.budget, self.window = budget, window
        self._waiting: dict[int, Item] = {}
        self._lengths: list[int] = []
        """Of all that wait, sorted."""
        self._by_length: dict[int, deque[int]] = {}
        """Numbers of the items of a length, longest waiting first."""
        self._next = 0
        for item in waiting:
            self._add(item)

    @property
    def waiting(self) -> list[Item]:
        """Items drawn and not yet packed, longest waiting first: the state that a resumed run needs."""
        return list(self._waiting.values())

    def next_row(self, draw: Callable[[], Item]) -> list[Item]:
        """The next row; `draw` gives new items.

        Raises:
            ValueError: an item longer than the budget.
        """
        for _ in range(self.window - len(self._waiting)):
            self._add(draw())
        waiting, lengths, by_length = self._waiting, self._lengths, self._by_length
        # The one that has waited longest is first of its length, too.
        length = next(iter(waiting.values())).length
        place = bisect_right(lengths, length) - 1
        row, left = [], self.budget
        while place >= 0:
            length = lengths.pop(place)
            row.append(waiting.pop(by_length[length].popleft()))
            left -= length
            place = bisect_right(lengths, left) - 1
        return row

    def _add(self, item: Item) -> None:
        length = item.length
        if length > self.budget:
            raise ValueError(f"a sample of {length} positions does not fit into a row of {self.budget}")
        self._waiting[self._next] = item
        insort(self._lengths, length)
        same = self._by_length.get(length)
        if same is None:
            same = self._by_length[length] = deque()
        same.append(self._next)
        self._next += 1
