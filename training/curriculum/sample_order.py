"""The order of samples as a function, not a list: a seeded permutation that any rank evaluates at any place.

No rank keeps a state of its own. The number of samples taken is the cursor; which rank takes which follows from the
cursor, the rank and the world size, so a run resumes with another world size and still takes every sample exactly once
an epoch.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)
Numbers = NDArray[np.uint64]


def mix(values: Numbers) -> Numbers:
    """splitmix64's finaliser: a bijection of 64-bit numbers that leaves no pattern to see."""
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLIERS[0]
    values = (values ^ (values >> np.uint64(27))) * _MULTIPLIERS[1]
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class Permutation:
    """A seeded permutation of 0 .. size-1 in constant memory: a Feistel network over the next power of four.

    Numbers outside the range are sent on through the network until they fall inside (cycle walking), which keeps it a
    bijection and takes less than four rounds on average.
    """

    size: int
    key: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a permutation of {self.size} things; there must be one or more")

    def __getitem__(self, places: NDArray[Any]) -> Numbers:
        """The number at each place; places are below `size`."""
        half = np.uint64(max((self.size - 1).bit_length() + 1, 2) // 2)
        mask = (np.uint64(1) << half) - np.uint64(1)
        values = places.astype(np.uint64)
        with np.errstate(over="ignore"):
            keys = mix(np.uint64(self.key % 2**64) + _STEP * np.arange(1, ROUNDS + 1, dtype=np.uint64))
            outside = np.ones(values.shape, dtype=bool)
            while outside.any():
                left, right = values[outside] >> half, values[outside] & mask
                for key in keys:
                    left, right = right, left ^ (mix(right + key) & mask)
                values[outside] = (left << half) | right
                outside = values >= self.size
        return values


BLOCK = 1024
"""Places that are evaluated together: the network costs the same for one."""


@dataclass
class SampleOrder:
    """An endless order over `size` samples, each epoch a permutation of its own; `cursor` samples were taken so far."""

    size: int
    seed: int
    cursor: int = 0
    _block: tuple[int, list[int]] = field(default=(-1, []), repr=False, compare=False)

    @property
    def epoch(self) -> int:
        """Whole passes so far."""
        return self.cursor // self.size

    def at(self, number: int) -> int:
        """The sample at place `number` of the endless order."""
        block, place = divmod(number, BLOCK)
        if self._block[0] != block:
            self._block = (block, self._evaluate(block * BLOCK, BLOCK))
        return self._block[1][place]

    def take(self) -> int:
        """The next sample; the cursor moves on."""
        sample = self.at(self.cursor)
        self.cursor += 1
        return sample

    def _evaluate(self, start: int, count: int) -> list[int]:
        samples: list[int] = []
        while len(samples) < count:
            epoch, place = divmod(start + len(samples), self.size)
            stop = min(self.size, place + count - len(samples))
            samples += Permutation(self.size, self._key(epoch))[np.arange(place, stop)].tolist()
        return samples

    def _key(self, epoch: int) -> int:
        with np.errstate(over="ignore"):
            seeds = np.array([self.seed % 2**64, epoch], dtype=np.uint64)
            return int(mix(mix(seeds[:1]) + seeds[1:] * _STEP)[0])


def share(count: int, rank: int, world: int) -> range:
    """Which of a step's `count` micro-batches belong to a rank: equally many each.

    Raises:
        ValueError: `world` does not divide `count`, or there is no such rank.
    """
    if not 0 <= rank < world or count % world:
        raise ValueError(f"{count} micro-batches a step cannot be shared by rank {rank} of {world} equally")
    return range(rank, count, world)
