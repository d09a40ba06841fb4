"""Best-fit packing into a position budget, without padding (design decision 8).

Samples wait in a window. A row starts with the one that has waited longest, so none starves, and is then filled with
the longest that still fits. Rows are made one after another from one global order; a step is a fixed number of rows,
which the ranks divide equally, so every rank has the same number of micro-batches by construction.
"""

from bisect import bisect_right, insort
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
        self._by_length: list[tuple[int, int]] = []
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
        while len(self._waiting) < self.window:
            self._add(draw())
        number, first = next(iter(self._waiting.items()))
        row = [self._remove(first.length, number)]
        left = self.budget - first.length
        while self._by_length:
            # Of equal lengths the one that has waited longest: numbers count down in the list.
            place = bisect_right(self._by_length, (left, 1)) - 1
            if place < 0:
                break
            length, negative = self._by_length[place]
            row.append(self._remove(length, -negative))
            left -= length
        return row

    def _add(self, item: Item) -> None:
        if item.length > self.budget:
            raise ValueError(f"a sample of {item.length} positions does not fit into a row of {self.budget}")
        self._waiting[self._next] = item
        insort(self._by_length, (item.length, -self._next))
        self._next += 1

    def _remove(self, length: int, number: int) -> Item:
        del self._by_length[bisect_right(self._by_length, (length, -number)) - 1]
        return self._waiting.pop(number)
