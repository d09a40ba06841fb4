"""Which sample is drawn next, so that target seconds come in the wanted shares at every moment.

A stream is a mode, a language and a dataset; its clips have an order of their own and each is drawn once an epoch of
the stream. A sample is due when its stream has been given, of all seconds drawn, as much as its share is; the next one
is that which is due first. No randomness, so a resumed run restores sums and cursors alone, and the achieved seconds
stay within about a clip's length of the wanted ones, however short the run. Free of torch (`feed/planner.py`).
"""

import heapq
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.curriculum.clip_slices import ClipSlices
from training.curriculum.sample_order import SampleOrder, hashed
from training.curriculum.sample_plan import REASONS, PlanArrays, PlannedSample, plan_block
from voxmill.core.errors import UserError
from voxmill.data.description_kinds import DEFAULT_SHARES, DescriptionShares
from voxmill.data.records import Mode

Curve = float | tuple[tuple[float, float], ...]
"""A share, or points (progress of the stage from 0 to 1, share) with straight lines between."""
GIVE_UP_AFTER = 10_000
"""Samples of a stream in a row that cannot be used: then none of it can."""
SMALLEST_BLOCK, LARGEST_BLOCK = 32, 512
"""Samples of a stream that are planned together."""


class NothingUsable(Exception):
    """No sample of a stream can be used. `examples`: a clip for each reason."""

    def __init__(self, examples: Mapping[str, int]) -> None:
        super().__init__(dict(examples))
        self.examples = dict(examples)


@dataclass(frozen=True)
class DrawnStream:
    """A stream as the planning process knows it. `share_of_mode`: part of its mode's seconds; `curve`: of the mode."""

    name: str
    mode: Mode
    language: str
    clips: NDArray[Any] | ClipSlices
    share_of_mode: float
    curve: Curve


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where a stream is: samples passed so far, seconds that it is behind, seconds drawn and wanted, its size."""

    cursor: int
    credit: float
    achieved: float
    wanted: float
    num_clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureState:
    """What a resumed run needs: each stream's state by its name."""

    streams: dict[str, StreamState]


def share_at(curve: Curve, progress: float) -> float:
    """The value of a curve at `progress`, 0 to 1; before its first point and after its last it stays level."""
    if not isinstance(curve, tuple):
        return float(curve)
    before = curve[0]
    for point in curve:
        if progress <= point[0]:
            width = point[0] - before[0]
            place = (progress - before[0]) / width if width else 1.0
            return before[1] + place * (point[1] - before[1])
        before = point
    return before[1]


def shares_at(streams: Sequence[DrawnStream], progress: float) -> NDArray[np.float64]:
    """What each stream should give of the seconds at `progress` of the stage, 0 to 1; adds up to 1."""
    shares: NDArray[np.float64] = np.array([share_at(s.curve, progress) * s.share_of_mode for s in streams])
    shares /= shares.sum()
    return shares


class StreamQueue:
    """The samples of one stream that can be used, in its order; those that cannot are passed over.

    Args:
        stream: and its index among all. seed: the run's.
    """

    def __init__(
        self,
        index: int,
        stream: DrawnStream,
        arrays: PlanArrays,
        *,
        seed: int,
        max_positions: int,
        cross_lingual: float | None,
        shares: DescriptionShares,
    ) -> None:
        self.index, self.stream, self._arrays = index, stream, arrays
        self._max_positions, self._cross_lingual, self._shares = max_positions, cross_lingual, shares
        # What a stream draws depends on its name, not on which other streams there are.
        self._seed = int(hashed(seed, zlib.crc32(stream.name.encode())))
        self.order = SampleOrder(len(stream.clips), self._seed)
        self.cursor = 0
        """Samples that were drawn or passed over."""
        self.avoid: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """Clips that are not used any more; `forget` after a change."""
        self.forget()

    def forget(self) -> None:
        """Drops what was planned ahead."""
        self._planned, self._size, self._next = self.cursor, SMALLEST_BLOCK, 0
        self._samples: list[PlannedSample] = []
        self._seconds: list[float] = []
        self._unusable: dict[int, int] = {}
        """Codes of the samples ahead that cannot be used, by their number."""

    def at(self, numbers: NDArray[np.int64]) -> tuple[list[PlannedSample], list[float], dict[int, int]]:
        """(samples that can be used, their seconds, codes of the others) of these places of the order, ascending."""
        first = int(numbers[0])
        places = self.order.samples(first, int(numbers[-1]) + 1 - first)[numbers - first]
        clips = self.stream.clips[places].astype(np.int64)
        block = plan_block(
            clips,
            numbers,
            self.stream.mode,
            self._arrays,
            seed=self._seed,
            max_positions=self._max_positions,
            cross_lingual=self._cross_lingual,
            shares=self._shares,
            avoid=self.avoid,
        )
        good = np.flatnonzero(block.codes == 0)
        bad = np.flatnonzero(block.codes)
        samples = list(
            map(
                PlannedSample,
                repeat(self.stream.mode),
                repeat(self.index),
                numbers[good].tolist(),
                clips[good].tolist(),
                _optional(block.descriptions[good]),
                _optional(block.references[good]),
                block.lengths[good].tolist(),
            )
        )
        codes = dict(zip(numbers[bad].tolist(), block.codes[bad].tolist(), strict=True))
        return samples, self._arrays.seconds[clips[good]].astype(np.float64).tolist(), codes

    def seconds(self) -> float:
        """Of target audio of the next sample.

        Raises:
            NothingUsable: there is no sample that can be used.
        """
        while self._next == len(self._samples):
            if self._planned - self.cursor >= GIVE_UP_AFTER:
                examples: dict[str, int] = {}
                for number, code in self._unusable.items():
                    clip = int(self.stream.clips[self.order.samples(number, 1)[0]])
                    examples.setdefault(REASONS[code], clip)
                raise NothingUsable(examples)
            numbers = np.arange(self._planned, self._planned + self._size)
            self._samples, self._seconds, codes = self.at(numbers)
            self._unusable |= codes
            self._planned, self._next = self._planned + self._size, 0
            self._size = min(2 * self._size, LARGEST_BLOCK)
        return self._seconds[self._next]

    def take(self, skipped: Counter[str]) -> PlannedSample:
        """The next sample; those before it that cannot be used are counted by reason."""
        sample = self._samples[self._next]
        self._next += 1
        for number in range(self.cursor, sample.number):
            skipped[REASONS[self._unusable.pop(number)]] += 1
        self.cursor = sample.number + 1
        return sample


def _optional(values: NDArray[np.int64]) -> list[int | None]:
    return [None if value < 0 else value for value in values.tolist()]


class Mixture:
    """Draws samples. Its state is the same for any number of ranks."""

    def __init__(
        self,
        streams: Sequence[DrawnStream],
        arrays: PlanArrays,
        *,
        seed: int,
        max_positions: int,
        cross_lingual: float | None = None,
        shares: DescriptionShares = DEFAULT_SHARES,
    ) -> None:
        self.streams = list(streams)
        self.queues = [
            StreamQueue(
                index,
                stream,
                arrays,
                seed=seed,
                max_positions=max_positions,
                cross_lingual=cross_lingual,
                shares=shares,
            )
            for index, stream in enumerate(self.streams)
        ]
        self._credit: NDArray[np.float64] = np.zeros(len(streams))
        self._achieved: NDArray[np.float64] = np.zeros(len(streams))
        self._wanted: NDArray[np.float64] = np.zeros(len(streams))
        self.skipped: Counter[str] = Counter()
        """Samples that could not be used, by reason."""
        # Since the last call of `begin`:
        self._shares = [0.0] * len(streams)
        self._drawn = [0.0] * len(streams)
        self._due: list[tuple[float, int]] = []
        """A heap of (when the next sample is due, in seconds drawn from all streams; stream)."""

    def begin(self, progress: float) -> None:
        """Draws with the shares at `progress` of the stage, 0 to 1, from now on.

        Raises:
            NothingUsable: a stream has no sample that can be used.
        """
        self._credit, self._achieved, self._wanted = self._sums()
        self._drawn = [0.0] * len(self._drawn)
        self._shares = shares_at(self.streams, progress).tolist()
        # A stream whose share has not risen yet is never due.
        self._due = [(self._due_at(index), index) for index, share in enumerate(self._shares) if share > 0]
        heapq.heapify(self._due)

    def draw(self) -> PlannedSample:
        """The next sample.

        Raises:
            NothingUsable: its stream has none any more after it.
        """
        index = self._due[0][1]
        queue = self.queues[index]
        self._drawn[index] += queue.seconds()
        sample = queue.take(self.skipped)
        heapq.heapreplace(self._due, (self._due_at(index), index))
        return sample

    def _due_at(self, index: int) -> float:
        """When half of the stream's next sample is what it should have given."""
        middle = self._drawn[index] + self.queues[index].seconds() / 2
        return (middle - float(self._credit[index])) / self._shares[index]

    def _sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(credit, achieved, wanted) of each stream by now."""
        drawn = np.array(self._drawn)
        wanted = np.array(self._shares) * sum(self._drawn)
        return self._credit + (wanted - drawn), self._achieved + drawn, self._wanted + wanted

    @property
    def achieved(self) -> NDArray[np.float64]:
        """Seconds drawn from each stream."""
        return self._sums()[1]

    @property
    def wanted(self) -> NDArray[np.float64]:
        """Seconds that each should have given by now."""
        return self._sums()[2]

    def avoid(self, clips: NDArray[np.int64]) -> None:
        """Uses these clips no more, in place of those of before; call `begin` before the next draw."""
        for queue in self.queues:
            queue.avoid = clips
            queue.forget()

    def epochs(self) -> dict[str, float]:
        """Passes over each stream so far."""
        return {queue.stream.name: queue.cursor / queue.order.size for queue in self.queues}

    def state(self) -> MixtureState:
        """What `restore` takes."""
        credits, achieved, wanted = self._sums()
        return MixtureState(
            streams={
                queue.stream.name: StreamState(
                    cursor=queue.cursor,
                    credit=float(credits[index]),
                    achieved=float(achieved[index]),
                    wanted=float(wanted[index]),
                    num_clips=len(queue.stream.clips),
                )
                for index, queue in enumerate(self.queues)
            }
        )

    def restore(self, state: MixtureState) -> None:
        """Continues from `state`.

        Raises:
            UserError: the streams or their clips are not those of the state: data or recipe changed.
        """
        before = {name: stream.num_clips for name, stream in state.streams.items()}
        now = {stream.name: len(stream.clips) for stream in self.streams}
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if changed:
            name = changed[0]
            raise UserError(
                f"the data changed since the checkpoint: {name} had {before.get(name, 0)} clips and has "
                f"{now.get(name, 0)}; restore the old dataset and recipe, or start a new run from this run's export"
            )
        self._drawn = [0.0] * len(self.streams)
        for index, queue in enumerate(self.queues):
            saved = state.streams[queue.stream.name]
            queue.cursor = saved.cursor
            queue.forget()
            self._credit[index], self._achieved[index], self._wanted[index] = saved.credit, saved.achieved, saved.wanted
