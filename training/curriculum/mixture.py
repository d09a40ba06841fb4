"""Which clip is drawn next and in which mode, so that target seconds come in the wanted shares at every moment.

A stream is a mode, a language and a dataset; its clips have an order of their own and each is drawn once an epoch of
the stream. The next sample comes from the stream that is furthest behind: every drawn second is credited to all streams
by their wanted share and charged to the one it came from. No randomness, so a resumed run restores sums and cursors
alone, and the achieved seconds stay within about a clip's length of the wanted ones, however short the run.
"""

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.curriculum.clip_slices import ClipSlices, Slice
from training.curriculum.corpus import Corpus
from training.curriculum.index.columns import Column
from training.curriculum.index.rules import BITS
from training.curriculum.recipe import MixtureConfig, Recipe, share_at
from training.curriculum.sample_order import SampleOrder
from voxmill.core.errors import UserError
from voxmill.data.records import Mode


@dataclass(frozen=True)
class Stream:
    """Clips of one mode, language and dataset. `share_of_mode` is this stream's part of its mode's seconds.

    clips: indexed by an int or an array of places, from 0 on.
    up_to: longest of its clips in seconds, where the recipe has shares by length. style: where it has shares by style,
    "" for the others.
    """

    mode: Mode
    language: str
    dataset: str
    clips: NDArray[np.int64] | ClipSlices
    seconds: float
    share_of_mode: float
    up_to: float | None = None
    style: str = ""

    @property
    def name(self) -> str:
        """As in logs: `design/en/main`, with shares by style `design/en/main/song`, by length `design/en/main/60s`."""
        style = f"/{self.style}" if self.style else ""
        length = "" if self.up_to is None else f"/{self.up_to:g}s"
        return f"{self.mode}/{self.language or 'unknown'}/{self.dataset}{style}{length}"


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """The sample at position `number` of the whole run: a clip in a mode. `stream`: its index."""

    number: int
    stream: int
    mode: Mode
    clip: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where a stream is: clips drawn so far, seconds that it is behind, seconds drawn and wanted, its size."""

    cursor: int
    credit: float
    achieved: float
    wanted: float
    num_clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureState:
    """What a resumed run needs: the number of samples drawn, and each stream's state by its name."""

    number: int
    streams: dict[str, StreamState]


def streams_of(corpus: Corpus, recipe: Recipe) -> list[Stream]:
    """All streams that the recipe asks for and the corpus has clips for. Of no clip anything is read but lengths.

    Raises:
        UserError: a mode with a share or a dataset has no clip; the message counts why clips were left out.
    """
    config = recipe.mixture
    streams: list[Stream] = []
    for mode, curve in config.modes.items():
        if share_at(curve, 0) <= 0 and not isinstance(curve, tuple):
            continue
        slices = _slices_of_mode(corpus, mode, config)
        if not slices:
            raise UserError(f"mixture.modes.{mode}: no clip can be used in this mode{_why(corpus)}")
        of_mode = _streams_of_mode(corpus, mode, slices, config)
        if not of_mode:
            raise UserError(
                f"mixture.styles: no clip of mode {mode} has one of them{_why(corpus)}; leave room for others"
            )
        streams += [part for stream in of_mode for part in _by_length(stream, config)]
    for name in recipe.datasets:
        if not any(stream.dataset == name for stream in streams):
            raise UserError(f"datasets.{name}: none of its clips enters{_why(corpus)}; drop it or change clips.*")
    for seconds in config.lengths:
        if not any(stream.up_to == seconds for stream in streams):
            raise UserError(f"mixture.lengths.{seconds:g}: there is no clip of that length{_why(corpus)}; drop it")
    for style in config.styles:
        if not any(stream.style == style for stream in streams):
            raise UserError(f"mixture.styles.{style}: there is no clip of that style{_why(corpus)}; drop it")
    return streams


ByStyle = dict[str, list[Slice]]
"""Slices of the clips of each style that the recipe names, and under "" of all others."""


def _slices_of_mode(corpus: Corpus, mode: Mode, config: MixtureConfig) -> dict[tuple[int, int], ByStyle]:
    """The clips of a mode by (language, dataset) and style."""
    slices: dict[tuple[int, int], ByStyle] = {}
    for group in corpus.groups:
        if group.modes & BITS[mode]:
            name = corpus.styles[group.style]
            by_style = slices.setdefault((group.language, group.dataset), {})
            by_style.setdefault(name if name in config.styles else "", []).append((group.start, group.stop))
    return slices


def _streams_of_mode(
    corpus: Corpus, mode: Mode, slices: dict[tuple[int, int], ByStyle], config: MixtureConfig
) -> list[Stream]:
    hours: dict[int, dict[int, float]] = {}
    for (language, dataset), by_style in slices.items():
        seconds = sum(corpus.group_seconds(*one) for some in by_style.values() for one in some)
        hours.setdefault(language, {})[dataset] = seconds * corpus.datasets[dataset].weight
    order = sorted(hours, key=lambda language: corpus.languages[language])
    shares = language_shares([sum(hours[language].values()) for language in order], config)
    streams: list[Stream] = []
    for language, share in zip(order, shares, strict=True):
        for dataset, amount in sorted(hours[language].items()):
            part = share * amount / sum(hours[language].values())
            for style, of_style in _by_style(slices[language, dataset], config):
                clips = ClipSlices(corpus, slices[language, dataset][style])
                names = (corpus.languages[language], corpus.datasets[dataset].name)
                streams.append(Stream(mode, *names, clips, clips.seconds, part * of_style, style=style))
    return streams


def _by_style(slices: ByStyle, config: MixtureConfig) -> list[tuple[str, float]]:
    """(style, its share) of the styles that are there; shares of those that are not go to the others."""
    shares = {**config.styles, "": max(1 - sum(config.styles.values()), 0.0)}
    total = sum(shares[style] for style in slices)
    # Without any total all are to be of styles that are not there.
    return [(style, shares[style] / total) for style in shares if style in slices and shares[style] > 0]


def _by_length(stream: Stream, config: MixtureConfig) -> list[Stream]:
    """The stream in streams of clips of like length; shares of lengths that it lacks go to those that it has."""
    if not config.lengths:
        return [stream]
    assert isinstance(stream.clips, ClipSlices)
    bounds = sorted(config.lengths)
    present = [(bound, clips) for bound, clips in zip(bounds, stream.clips.up_to(bounds), strict=True) if clips]
    total = sum(config.lengths[bound] for bound, _ in present)
    return [
        dataclasses.replace(
            stream,
            clips=clips,
            seconds=clips.seconds,
            share_of_mode=stream.share_of_mode * config.lengths[bound] / total,
            up_to=bound,
        )
        for bound, clips in present
    ]


def _why(corpus: Corpus) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.left_out.most_common(5))
    return f" (left out: {reasons})" if reasons else ""


def language_shares(hours: Sequence[float], config: MixtureConfig) -> list[float]:
    """Shares of languages with these hours; they add up to 1."""
    powers = [1.0 if config.balanced_languages else amount ** (1 / config.temperature) for amount in hours]
    return [power / sum(powers) for power in powers]


class Mixture:
    """Draws samples. Its state is the same for any number of ranks."""

    def __init__(
        self,
        streams: Sequence[Stream],
        config: MixtureConfig,
        seed: int,
        seconds: NDArray[np.float64] | Column[np.float64],
    ) -> None:
        """`seconds`: of every clip of the corpus."""
        self.streams, self._config, self._seconds = list(streams), config, seconds
        # A stream's order depends on its name, not on which other streams there are.
        self._orders = [SampleOrder(len(s.clips), seed * 2**32 + zlib.crc32(s.name.encode())) for s in streams]
        self._credit: NDArray[np.float64] = np.zeros(len(streams))
        self.achieved: NDArray[np.float64] = np.zeros(len(streams))
        """Seconds drawn from each stream."""
        self.wanted: NDArray[np.float64] = np.zeros(len(streams))
        """Seconds that each should have given by now."""
        self.number = 0

    def shares(self, progress: float) -> NDArray[np.float64]:
        """What each stream should give of the next seconds; adds up to 1."""
        shares: NDArray[np.float64] = np.array(
            [share_at(self._config.modes[s.mode], progress) * s.share_of_mode for s in self.streams]
        )
        shares /= shares.sum()
        return shares

    def draw(self, progress: float) -> DrawnSample:
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
        drawn = DrawnSample(self.number, stream, self.streams[stream].mode, clip)
        self.number += 1
        return drawn

    def take_back(self, sample: DrawnSample, progress: float) -> None:
        """Undoes the sums of a sample that could not be used, so that its stream does not count it as drawn."""
        seconds = float(self._seconds[sample.clip])
        self._credit -= self.shares(progress) * seconds
        self.wanted -= self.shares(progress) * seconds
        self._credit[sample.stream] += seconds
        self.achieved[sample.stream] -= seconds

    def epochs(self) -> dict[str, float]:
        """Passes over each stream so far."""
        return {s.name: order.cursor / order.size for s, order in zip(self.streams, self._orders, strict=True)}

    def state(self) -> MixtureState:
        """What `restore` takes."""
        return MixtureState(
            number=self.number,
            streams={
                stream.name: StreamState(
                    cursor=order.cursor,
                    credit=float(credit),
                    achieved=float(achieved),
                    wanted=float(wanted),
                    num_clips=len(stream.clips),
                )
                for stream, order, credit, achieved, wanted in zip(
                    self.streams, self._orders, self._credit, self.achieved, self.wanted, strict=True
                )
            },
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
        self.number = state.number
        for index, stream in enumerate(self.streams):
            saved = state.streams[stream.name]
            self._orders[index].cursor = saved.cursor
            self._credit[index], self.achieved[index], self.wanted[index] = saved.credit, saved.achieved, saved.wanted
