"""The samples of a whole run in packed rows, the same on every rank: drawn, planned and packed, step after step.

Every rank plans every row of a step, which takes lengths alone, and reads the audio of its own rows only. The state for
a resumed run is the same for any number of ranks.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus
from training.curriculum.mixture import DrawnSample, Mixture, MixtureState, streams_of
from training.curriculum.recipe import Recipe
from training.curriculum.row_packer import Packer
from training.curriculum.sample_plan import PlannedSample, plan_sample
from voxmill.core.errors import UserError

GIVE_UP_AFTER = 10_000
"""Samples in a row that cannot be used: then no sample of the corpus can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleStreamState:
    """What a resumed run needs. `waiting`: samples drawn and not yet packed, longest waiting first."""

    step: int
    mixture: MixtureState
    waiting: tuple[DrawnSample, ...]
    quarantined: tuple[int, ...]
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Share:
    """Parts of the seconds drawn so far, 0 to 1."""

    wanted: float
    achieved: float


class SampleStream:
    """Rows of the steps of one stage. `quarantined`: clips that are not used any more."""

    def __init__(self, corpus: Corpus, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        self.corpus, self.recipe, self._tokenizer = corpus, recipe, tokenizer
        self.mixture = Mixture(streams_of(corpus, recipe), recipe.mixture, recipe.seed, corpus.seconds)
        self._packer: Packer[PlannedSample] = Packer(recipe.packing.positions, recipe.packing.window)
        self.step = 0
        self.skipped: Counter[str] = Counter()
        """Samples that could not be used, by reason."""
        self.quarantined: set[int] = set()
        self.examples: dict[str, str] = {}
        """The first skipped clip of each reason."""

    def next_step(self) -> list[list[PlannedSample]]:
        """The rows of the next step, over all ranks.

        Raises:
            UserError: no sample of the corpus fits.
        """
        progress = self.step / max(self.recipe.steps - 1, 1)
        rows = [self._packer.next_row(lambda: self._draw(progress)) for _ in range(self.recipe.rows)]
        self.step += 1
        return rows

    def _draw(self, progress: float) -> PlannedSample:
        for _ in range(GIVE_UP_AFTER):
            draw = self.mixture.draw(progress)
            sample = self._plan(draw)
            if not isinstance(sample, str):
                return sample
            self.mixture.take_back(draw, progress)
            self.skipped[sample] += 1
            self.examples.setdefault(sample, self.corpus.clip_id(draw.clip))
        reasons = ", ".join(f"{reason} (clip {clip})" for reason, clip in self.examples.items())
        raise UserError(
            f"{GIVE_UP_AFTER} samples in a row cannot be used: {reasons}; raise max_positions or change clips.*"
        )

    def _plan(self, draw: DrawnSample) -> PlannedSample | str:
        recipe = self.recipe
        return plan_sample(
            draw,
            self.corpus,
            self._tokenizer,
            seed=recipe.seed,
            max_positions=recipe.max_positions,
            avoid=self.quarantined,
        )

    def quarantine(self, clips: Iterable[int]) -> None:
        """Uses these clips no more, not as a reference either; waiting samples with one of them are dropped."""
        self.quarantined |= set(clips)
        packing = self.recipe.packing
        waiting = [s for s in self._packer.waiting if not {s.draw.clip, s.reference} & self.quarantined]
        self._packer = Packer(packing.positions, packing.window, waiting)

    def shares(self) -> dict[str, Share]:
        """Shares of the seconds drawn so far, by stream, mode and language."""
        shares: dict[str, Share] = {}
        wanted, achieved = self.mixture.wanted, self.mixture.achieved
        total = max(float(achieved.sum()), 1e-9)
        for index, stream in enumerate(self.mixture.streams):
            for name in (stream.name, f"mode/{stream.mode}", f"language/{stream.language}"):
                before = shares.get(name, Share(0.0, 0.0))
                shares[name] = Share(
                    before.wanted + float(wanted[index]) / total, before.achieved + float(achieved[index]) / total
                )
        return shares

    def state(self) -> SampleStreamState:
        """What `restore` takes."""
        return SampleStreamState(
            step=self.step,
            mixture=self.mixture.state(),
            waiting=tuple(sample.draw for sample in self._packer.waiting),
            quarantined=tuple(sorted(self.quarantined)),
            skipped=dict(self.skipped),
        )

    def restore(self, state: SampleStreamState) -> None:
        """Continues from `state`, in any world.

        Raises:
            UserError: data or recipe changed since.
        """
        self.mixture.restore(state.mixture)
        self.step, self.skipped = state.step, Counter(state.skipped)
        self.quarantined = set(state.quarantined)
        waiting = [self._plan(draw) for draw in state.waiting]
        if any(isinstance(sample, str) for sample in waiting):
            raise UserError("max_positions or the clips changed since the checkpoint; restore the old ones")
        packing = self.recipe.packing
        self._packer = Packer(packing.positions, packing.window, [s for s in waiting if not isinstance(s, str)])
