"""The whole run's samples in packed rows, the same for every rank: drawn, shown, packed, a step after another.

Every rank works out every row of a step, which costs lengths alone, and reads the audio of its own rows only. What a
resumed run must know is plain data that no number of ranks changes.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple
from typing import Any

from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus
from training.curriculum.mixture import Draw, Mixture, streams_of
from training.curriculum.recipe import Recipe
from training.curriculum.row_packer import Packer
from training.curriculum.sample_plan import Shown, show
from voxmill.core.errors import UserError

GIVE_UP_AFTER = 10_000
"""Samples in a row that cannot be shown: then nothing in the corpus can."""


class SampleStream:
    """Rows of the steps of one stage. `quarantined`: clips that are not shown any more."""

    def __init__(self, corpus: Corpus, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        self.corpus, self.recipe, self._tokenizer = corpus, recipe, tokenizer
        self.mixture = Mixture(streams_of(corpus, recipe), recipe.mixture, recipe.seed, corpus.seconds)
        self._packer: Packer[Shown] = Packer(recipe.packing.positions, recipe.packing.window)
        self.step = 0
        self.passed_by: Counter[str] = Counter()
        self.quarantined: set[int] = set()
        self.examples: dict[str, str] = {}
        """The first clip that was passed by for each reason."""

    def next_step(self) -> list[list[Shown]]:
        """The rows of the next step, over all ranks.

        Raises:
            UserError: no sample of the corpus fits.
        """
        progress = self.step / max(self.recipe.steps - 1, 1)
        rows = [self._packer.next_row(lambda: self._draw(progress)) for _ in range(self.recipe.rows)]
        self.step += 1
        return rows

    def _draw(self, progress: float) -> Shown:
        for _ in range(GIVE_UP_AFTER):
            draw = self.mixture.draw(progress)
            shown = self._show(draw)
            if not isinstance(shown, str):
                return shown
            self.mixture.take_back(draw, progress)
            self.passed_by[shown] += 1
            self.examples.setdefault(shown, self.corpus.value(draw.clip, "clip_id"))
        reasons = ", ".join(f"{reason} (clip {clip})" for reason, clip in self.examples.items())
        raise UserError(
            f"{GIVE_UP_AFTER} samples in a row cannot be shown: {reasons}; raise max_positions or change clips.*"
        )

    def _show(self, draw: Draw) -> Shown | str:
        recipe = self.recipe
        return show(
            draw,
            self.corpus,
            self._tokenizer,
            seed=recipe.seed,
            max_positions=recipe.max_positions,
            avoid=self.quarantined,
        )

    def quarantine(self, clips: Iterable[int]) -> None:
        """Clips that are shown no more, not as a reference either; samples that wait with one of them are dropped."""
        self.quarantined |= set(clips)
        packing = self.recipe.packing
        waiting = [s for s in self._packer.waiting if not {s.draw.clip, s.reference} & self.quarantined]
        self._packer = Packer(packing.positions, packing.window, waiting)

    def shares(self) -> dict[str, tuple[float, float]]:
        """(wanted, achieved) share of the seconds drawn so far, by stream, mode and language."""
        found: dict[str, tuple[float, float]] = {}
        wanted, achieved = self.mixture.wanted, self.mixture.achieved
        total = max(float(achieved.sum()), 1e-9)
        for place, stream in enumerate(self.mixture.streams):
            for name in (stream.name, f"mode/{stream.mode}", f"language/{stream.language}"):
                before = found.get(name, (0.0, 0.0))
                found[name] = (before[0] + float(wanted[place]) / total, before[1] + float(achieved[place]) / total)
        return found

    def state(self) -> dict[str, Any]:
        """Plain data, exact in JSON."""
        return {
            "step": self.step,
            "mixture": self.mixture.state(),
            "waiting": [list(astuple(shown.draw)) for shown in self._packer.waiting],
            "quarantined": sorted(self.quarantined),
            "passed_by": dict(self.passed_by),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, in any world. Raises UserError where data or recipe changed since."""
        self.mixture.restore(state["mixture"])
        self.step, self.passed_by = state["step"], Counter(state["passed_by"])
        self.quarantined = set(state["quarantined"])
        waiting = [self._show(Draw(*values)) for values in state["waiting"]]
        if any(isinstance(shown, str) for shown in waiting):
            raise UserError("max_positions or the clips changed since the checkpoint; give the old ones back")
        packing = self.recipe.packing
        self._packer = Packer(packing.positions, packing.window, [s for s in waiting if not isinstance(s, str)])
