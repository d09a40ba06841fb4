"""The samples of a whole run in packed rows, the same whoever asks: drawn, planned and packed, step after step.

All rows of a step are planned together, from lengths alone, by one process a node (`feed/planner.py`); a rank reads the
audio of its own rows only. The state for a resumed run is the same for any number of ranks. Free of torch.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.curriculum.row_packer import Packer
from training.curriculum.sample_draws import DrawnStream, Mixture, MixtureState
from training.curriculum.sample_plan import PlanArrays, PlannedSample
from voxmill.core.errors import UserError
from voxmill.data.description_kinds import DEFAULT_SHARES, DescriptionShares


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """What a recipe says of planning: `rows` of `positions` in each of `steps`, out of a `window` of samples.

    shares: of the kinds of descriptions, by mode.
    """

    seed: int
    steps: int
    rows: int
    positions: int
    window: int
    max_positions: int
    cross_lingual: float | None = None
    shares: DescriptionShares = field(default_factory=lambda: DEFAULT_SHARES)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleStreamState:
    """What a resumed run needs, after `step` steps.

    waiting: (stream's place in `mixture.streams`, number) of samples drawn and not yet packed, longest waiting first.
    """

    step: int
    mixture: MixtureState
    waiting: tuple[tuple[int, int], ...]
    quarantined: tuple[int, ...]
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Share:
    """Parts of the seconds drawn so far, 0 to 1."""

    wanted: float
    achieved: float


class RowPlan:
    """Rows of the steps of one stage."""

    def __init__(self, streams: Sequence[DrawnStream], arrays: PlanArrays, settings: PlanSettings) -> None:
        self.settings = settings
        self.mixture = Mixture(
            streams,
            arrays,
            seed=settings.seed,
            max_positions=settings.max_positions,
            cross_lingual=settings.cross_lingual,
            shares=settings.shares,
        )
        self._packer: Packer[PlannedSample] = Packer(settings.positions, settings.window)
        self.step = 0
        self.quarantined: frozenset[int] = frozenset()
        """Clips that are not used any more; `quarantine` adds to them."""

    @property
    def skipped(self) -> Counter[str]:
        """Samples that could not be used, by reason."""
        return self.mixture.skipped

    def next_step(self) -> list[list[PlannedSample]]:
        """The rows of the next step, over all ranks.

        Raises:
            NothingUsable: no sample of a stream can be used.
        """
        self.mixture.begin(self.step / max(self.settings.steps - 1, 1))
        rows = [self._packer.next_row(self.mixture.draw) for _ in range(self.settings.rows)]
        self.step += 1
        return rows

    def quarantine(self, clips: Iterable[int]) -> None:
        """Uses these clips no more, not as a reference either; waiting samples with one of them are dropped."""
        self.quarantined |= frozenset(clips)
        self.mixture.avoid(np.array(sorted(self.quarantined), dtype=np.int64))
        self._pack_again([s for s in self._packer.waiting if self.quarantined.isdisjoint(s.clips)])

    def _pack_again(self, waiting: Iterable[PlannedSample]) -> None:
        self._packer = Packer(self.settings.positions, self.settings.window, waiting)

    def state(self) -> SampleStreamState:
        """What `restore` takes."""
        return SampleStreamState(
            step=self.step,
            mixture=self.mixture.state(),
            waiting=tuple((sample.stream, sample.number) for sample in self._packer.waiting),
            quarantined=tuple(sorted(self.quarantined)),
            skipped=dict(self.skipped),
        )

    def restore(self, state: SampleStreamState) -> None:
        """Continues from `state`, in any world.

        Raises:
            UserError: data or recipe changed since.
        """
        self.mixture.restore(state.mixture)
        self.step, self.mixture.skipped = state.step, Counter(state.skipped)
        self.quarantined = frozenset(state.quarantined)
        self.mixture.avoid(np.array(state.quarantined, dtype=np.int64))
        now = {stream.name: index for index, stream in enumerate(self.mixture.streams)}
        indexes = [now[name] for name in state.mixture.streams]
        numbers: dict[int, list[int]] = {}
        for place, number in state.waiting:
            numbers.setdefault(indexes[place], []).append(number)
        known: dict[tuple[int, int], PlannedSample] = {}
        for index, some in numbers.items():
            samples, _, unusable = self.mixture.queues[index].at(np.array(sorted(some)))
            if unusable:
                raise UserError("max_positions or the clips changed since the checkpoint; restore the old ones")
            known |= {(index, sample.number): sample for sample in samples}
        self._pack_again([known[indexes[place], number] for place, number in state.waiting])


def shares_of(streams: Sequence[DrawnStream], mixture: MixtureState) -> dict[str, Share]:
    """Shares of the seconds drawn so far, by stream, mode and language."""
    shares: dict[str, Share] = {}
    total = max(sum(state.achieved for state in mixture.streams.values()), 1e-9)
    for stream in streams:
        state = mixture.streams[stream.name]
        for name in (stream.name, f"mode/{stream.mode}", f"language/{stream.language}"):
            before = shares.get(name, Share(0.0, 0.0))
            shares[name] = Share(before.wanted + state.wanted / total, before.achieved + state.achieved / total)
    return shares
