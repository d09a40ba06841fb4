"""Which clip is shown next and in which mode, so that target seconds come in the wanted shares at every moment.

A stream is a mode, a language and a dataset; its clips have an order of their own and each is met once an epoch of the
stream. The next sample comes from the stream that is furthest behind: every drawn second is credited to all streams by
their wanted share and charged to the one it came from. No randomness, so nothing to restore but sums and cursors, and
what was achieved stays within a clip's length or so of what was wanted, however short the run.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.curriculum.corpus import Corpus
from training.curriculum.recipe import MixtureConfig, Recipe, share_at
from training.curriculum.sample_order import SampleOrder
from voxmill.core.errors import UserError
from voxmill.data.records import MODES, Mode


@dataclass(frozen=True)
class Stream:
    """Clips of one mode, language and dataset. `share_of_mode` is this stream's part of its mode's seconds."""

    mode: Mode
    language: str
    dataset: str
    clips: NDArray[np.int64]
    seconds: float
    share_of_mode: float

    @property
    def name(self) -> str:
        """As in logs: `design/en/main`."""
        return f"{self.mode}/{self.language or 'unknown'}/{self.dataset}"


@dataclass(frozen=True)
class Draw:
    """The sample at place `number` of the whole run: a clip shown in a mode."""

    number: int
    stream: int
    mode: Mode
    clip: int


def streams_of(corpus: Corpus, recipe: Recipe) -> list[Stream]:
    """All streams that the recipe asks for and the corpus has clips for.

    Raises:
        UserError: a mode with a share or a dataset has no clip; says why its clips were left out.
    """
    config = recipe.mixture
    found: list[Stream] = []
    for mode, curve in config.modes.items():
        if share_at(curve, 0) <= 0 and not isinstance(curve, tuple):
            continue
        mine = np.flatnonzero(corpus.modes_CM[:, MODES.index(mode)])
        if not len(mine):
            raise UserError(f"mixture.modes.{mode}: no clip can be shown in this mode{_why(corpus)}")
        found += _streams_of_mode(corpus, recipe, mode, mine)
    for name in recipe.datasets:
        if not any(stream.dataset == name for stream in found):
            raise UserError(f"datasets.{name}: none of its clips enters{_why(corpus)}; drop it or change clips.*")
    return found


def _why(corpus: Corpus) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.left_out.most_common(5))
    return f" (left out: {reasons})" if reasons else ""


def _streams_of_mode(corpus: Corpus, recipe: Recipe, mode: Mode, clips: NDArray[np.int64]) -> list[Stream]:
    weights = np.array([dataset.weight for dataset in corpus.datasets])
    keys = corpus.language[clips] * len(corpus.datasets) + corpus.dataset[clips]
    groups = {int(key): clips[keys == key] for key in np.unique(keys)}
    hours: dict[int, dict[int, float]] = {}
    for key, members in groups.items():
        language, dataset = divmod(key, len(corpus.datasets))
        hours.setdefault(language, {})[dataset] = float(corpus.seconds[members].sum() * weights[dataset])
    order = sorted(hours, key=lambda language: corpus.languages[language])
    shares = dict(
        zip(order, language_shares([sum(hours[lang].values()) for lang in order], recipe.mixture), strict=True)
    )
    return [
        Stream(
            mode,
            corpus.languages[language],
            corpus.datasets[dataset].name,
            groups[language * len(corpus.datasets) + dataset],
            float(corpus.seconds[groups[language * len(corpus.datasets) + dataset]].sum()),
            shares[language] * amount / sum(hours[language].values()),
        )
        for language in order
        for dataset, amount in sorted(hours[language].items())
    ]


def language_shares(hours: Sequence[float], config: MixtureConfig) -> list[float]:
    """Shares of languages with these hours; they add up to 1."""
    powers = [1.0 if config.balanced_languages else amount ** (1 / config.temperature) for amount in hours]
    return [power / sum(powers) for power in powers]


class Mixture:
    """Draws samples; `state` and `restore` move it to another process, whatever the number of ranks there."""

    def __init__(
        self, streams: Sequence[Stream], config: MixtureConfig, seed: int, seconds: NDArray[np.float64]
    ) -> None:
        """`seconds`: of every clip of the corpus."""
        self.streams, self._config, self._seconds = list(streams), config, seconds
        # A stream's order depends on its name, not on which other streams there are.
        self._orders = [SampleOrder(len(s.clips), seed * 2**32 + zlib.crc32(s.name.encode())) for s in streams]
        self._credit = np.zeros(len(streams))
        self.achieved = np.zeros(len(streams))
        """Seconds drawn from each stream."""
        self.wanted = np.zeros(len(streams))
        """Seconds that each should have given by now."""
        self.number = 0

    def shares(self, progress: float) -> NDArray[np.float64]:
        """What each stream should give of the next seconds; adds up to 1."""
        shares = np.array([share_at(self._config.modes[s.mode], progress) * s.share_of_mode for s in self.streams])
        return shares / shares.sum()

    def draw(self, progress: float) -> Draw:
        """The next sample at `progress` of the stage, 0 to 1."""
        shares = self.shares(progress)
        # A stream whose share has not risen yet is not behind, even where all others are ahead by a hair.
        stream = int(np.argmax(np.where(shares > 0, self._credit, -np.inf)))
        clip = int(self.streams[stream].clips[self._orders[stream].take()])
        seconds = float(self._seconds[clip])
        self._credit += shares * seconds
        self.wanted += shares * seconds
        self._credit[stream] -= seconds
        self.achieved[stream] += seconds
        drawn = Draw(self.number, stream, self.streams[stream].mode, clip)
        self.number += 1
        return drawn

    def take_back(self, draw: Draw, progress: float) -> None:
        """Undoes the sums of a draw that could not be shown, so that its stream is not thought to have given it."""
        seconds = float(self._seconds[draw.clip])
        self._credit -= self.shares(progress) * seconds
        self.wanted -= self.shares(progress) * seconds
        self._credit[draw.stream] += seconds
        self.achieved[draw.stream] -= seconds

    def epochs(self) -> dict[str, float]:
        """Passes over each stream so far."""
        return {s.name: order.cursor / order.size for s, order in zip(self.streams, self._orders, strict=True)}

    def state(self) -> dict[str, Any]:
        """Plain data, exact in JSON."""
        return {
            "number": self.number,
            "streams": {
                stream.name: [order.cursor, float(credit), float(achieved), float(wanted), len(stream.clips)]
                for stream, order, credit, achieved, wanted in zip(
                    self.streams, self._orders, self._credit, self.achieved, self.wanted, strict=True
                )
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`.

        Raises:
            UserError: the streams or their clips are not those of the state: data or recipe changed.
        """
        wanted = {name: values[4] for name, values in state["streams"].items()}
        found = {stream.name: len(stream.clips) for stream in self.streams}
        changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if changed:
            name = changed[0]
            raise UserError(
                f"the data changed since the checkpoint: {name} had {wanted.get(name, 0)} clips and has "
                f"{found.get(name, 0)}; give the old dataset and recipe back, or start a new run from its export"
            )
        self.number = state["number"]
        for place, stream in enumerate(self.streams):
            cursor, credit, achieved, aim, _ = state["streams"][stream.name]
            self._orders[place].cursor = cursor
            self._credit[place], self.achieved[place], self.wanted[place] = credit, achieved, aim
