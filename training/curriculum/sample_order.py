"""The order of samples as a function, not a list: a seeded permutation that any process evaluates at any place.

No rank keeps a state of its own. The number of samples taken is the cursor; which rank takes which follows from the
cursor, the rank and the world size, so a run resumes with another world size and still takes every sample exactly once
an epoch. Neighbours in the index, whose latents lie side by side in a shard, come within one window: a run reads
a few shards at a time, and not all of them.
"""

from dataclasses import dataclass
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


def hashed(seed: int, *numbers: NDArray[Any] | int) -> Numbers:
    """64 random bits that belong to a seed and some numbers, or arrays of them, of any range."""
    with np.errstate(over="ignore"):
        value = np.asarray(mix(np.array(seed % 2**64, dtype=np.uint64)))
        for number in numbers:
            if isinstance(number, int):
                number = np.array(number % 2**64, dtype=np.uint64)
            value = mix(value + (number.astype(np.uint64) + np.uint64(1)) * _STEP)
    return value


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


BLOCK = 64
"""Neighbouring samples that stay together: 2 to 4 MB of latents."""
WINDOW = 32
"""Blocks whose samples are shuffled together: 2048 samples, twice what streaming loaders hold."""


class SampleOrder:
    """An endless order over `size` samples, each epoch a permutation of its own.

    Blocks of `BLOCK` neighbours come in random order, and the samples of each `WINDOW` blocks in random order. Up to
    2048 samples that is any permutation. Where blocks begin is another in each epoch.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._known: tuple[int, int, NDArray[np.int64]] | None = None

    def samples(self, start: int, count: int) -> NDArray[np.int64]:
        """The samples at the places from `start` on."""
        found = []
        while count > 0:
            epoch, place = divmod(start, self.size)
            number, within = divmod(place, BLOCK * WINDOW)
            some = self._window(epoch, number)[within : within + count]
            found.append(some)
            start, count = start + len(some), count - len(some)
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def _window(self, epoch: int, number: int) -> NDArray[np.int64]:
        """The samples of a window of an epoch, the last one of which may be smaller. It is kept for the next call."""
        if self._known is None or self._known[:2] != (epoch, number):
            first = number * BLOCK * WINDOW
            size = min(BLOCK * WINDOW, self.size - first)
            keys = hashed(self.seed, epoch, 1 + number, np.arange(size))
            block, within = np.divmod(np.argsort(keys, kind="stable") + first, BLOCK)
            whole = self.size // BLOCK
            if whole:
                # What is left of the last block stays last: the shift below makes it another block in each epoch.
                places = np.arange(number * WINDOW, min((number + 1) * WINDOW, whole))
                moved = Permutation(whole, int(hashed(self.seed, epoch, 0)))[places].astype(np.int64)
                inside = block < whole
                block[inside] = moved[block[inside] - number * WINDOW]
            shift = int(hashed(self.seed, epoch)) % self.size
            self._known = (epoch, number, (block * BLOCK + within + shift) % self.size)
        return self._known[2]


def share(count: int, rank: int, world: int) -> range:
    """Which of a step's `count` micro-batches belong to a rank: equally many each.

    Raises:
        ValueError: `world` does not divide `count`, or there is no such rank.
    """
    if not 0 <= rank < world or count % world:
        raise ValueError(f"{count} micro-batches a step cannot be shared by rank {rank} of {world} equally")
    return range(rank, count, world)
