"""The streams that a recipe mixes: the clips of a mode, a language and a dataset, and their wanted share.

Which stream the next sample comes from is decided in `sample_draws.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.curriculum.clip_slices import ClipSlices
from training.curriculum.corpus import Corpus
from training.curriculum.index.columns import Group
from training.curriculum.index.rules import BITS
from training.curriculum.recipe import MixtureConfig, Recipe
from training.curriculum.sample_draws import share_at
from voxmill.core.errors import UserError
from voxmill.data.records import Mode


@dataclass(frozen=True)
class Stream:
    """Clips of one mode, language and dataset, which are some groups of the corpus.

    clips: their numbers. share_of_mode: the stream's part of its mode's seconds.
    up_to: longest of its clips in seconds, where the recipe has shares by length. style: where it has shares by style,
    "" for the others.
    """

    mode: Mode
    language: str
    dataset: str
    groups: tuple[Group, ...]
    clips: ClipSlices
    share_of_mode: float
    up_to: float | None = None
    style: str = ""

    @property
    def seconds(self) -> float:
        """Of all its clips."""
        return sum(group.seconds for group in self.groups)

    @property
    def name(self) -> str:
        """As in logs: `design/en/main`, with shares by style `design/en/main/song`, by length `design/en/main/60s`."""
        style = f"/{self.style}" if self.style else ""
        length = "" if self.up_to is None else f"/{self.up_to:g}s"
        return f"{self.mode}/{self.language or 'unknown'}/{self.dataset}{style}{length}"


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
        groups = _groups_of_mode(corpus, mode, config)
        if not groups:
            raise UserError(f"mixture.modes.{mode}: no clip can be used in this mode{_why(corpus)}")
        of_mode = _streams_of_mode(corpus, mode, groups, recipe)
        if not of_mode:
            raise UserError(
                f"mixture.styles: no clip of mode {mode} has one of them{_why(corpus)}; leave room for others"
            )
        streams += [part for stream in of_mode for part in _by_length(stream, corpus, config)]
    for name, dataset in recipe.datasets.items():
        if dataset.role != "validate" and not any(stream.dataset == name for stream in streams):
            raise UserError(f"datasets.{name}: none of its clips enters{_why(corpus)}; drop it or change clips.*")
    for style in config.styles:
        if not any(stream.style == style for stream in streams):
            raise UserError(f"mixture.styles.{style}: there is no clip of that style{_why(corpus)}; drop it")
    return streams


ByStyle = dict[str, list[Group]]
"""Groups of each style that the recipe names, and under "" of all others."""


def _groups_of_mode(corpus: Corpus, mode: Mode, config: MixtureConfig) -> dict[tuple[int, int], ByStyle]:
    """Groups of clips of a mode by (language, dataset) and style."""
    groups: dict[tuple[int, int], ByStyle] = {}
    for group in corpus.groups:
        if group.modes & BITS[mode]:
            name = corpus.styles[group.style]
            by_style = groups.setdefault((group.language, group.dataset), {})
            by_style.setdefault(name if name in config.styles else "", []).append(group)
    return groups


def _streams_of_mode(
    corpus: Corpus, mode: Mode, groups: dict[tuple[int, int], ByStyle], recipe: Recipe
) -> list[Stream]:
    hours: dict[int, dict[int, float]] = {}
    for (language, dataset), by_style in groups.items():
        seconds = sum(group.seconds for some in by_style.values() for group in some)
        hours.setdefault(language, {})[dataset] = seconds * corpus.datasets[dataset].weight
    shares = stream_shares(hours, [recipe.datasets[dataset.name].share for dataset in corpus.datasets], recipe.mixture)
    streams: list[Stream] = []
    for language in sorted(hours, key=lambda language: corpus.languages[language]):
        for dataset in sorted(hours[language]):
            part = shares[language, dataset]
            for style, of_style in _by_style(groups[language, dataset], recipe.mixture):
                own = tuple(groups[language, dataset][style])
                names = (corpus.languages[language], corpus.datasets[dataset].name)
                streams.append(Stream(mode, *names, own, _clips(corpus, own), part * of_style, style=style))
    return streams


def _clips(corpus: Corpus, groups: Sequence[Group]) -> ClipSlices:
    return ClipSlices(corpus.group_clips, [(group.start, group.stop) for group in groups])


def _by_style(groups: ByStyle, config: MixtureConfig) -> list[tuple[str, float]]:
    """(style, its share) of the styles that are there; shares of those that are not go to the others."""
    shares = {**config.styles, "": max(1 - sum(config.styles.values()), 0.0)}
    total = sum(shares[style] for style in groups)
    # Without any total all are to be of styles that are not there.
    return [(style, shares[style] / total) for style in shares if style in groups and shares[style] > 0]


def _by_length(stream: Stream, corpus: Corpus, config: MixtureConfig) -> list[Stream]:
    """The stream in streams of clips of like length; shares of lengths that it lacks go to those that it has."""
    if not config.lengths:
        return [stream]
    present: dict[float, list[Group]] = {}
    for group in stream.groups:
        assert group.up_to is not None, "an index of a recipe with shares by length"
        present.setdefault(group.up_to, []).append(group)
    total = sum(config.lengths[bound] for bound in present)
    return [
        dataclasses.replace(
            stream,
            groups=tuple(present[bound]),
            clips=_clips(corpus, present[bound]),
            share_of_mode=stream.share_of_mode * config.lengths[bound] / total,
            up_to=bound,
        )
        for bound in sorted(present)
    ]


def _why(corpus: Corpus) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.left_out.most_common(5))
    return f" (left out: {reasons})" if reasons else ""


def stream_shares(
    hours: Mapping[int, Mapping[int, float]], dataset_shares: Sequence[float | None], config: MixtureConfig
) -> dict[tuple[int, int], float]:
    """Shares of a mode's seconds by (language, dataset); they add up to 1.

    A dataset with a share of its own has that; the others together have the rest. What a dataset without clips of the
    mode would have goes to those that have some. Within either, languages have theirs by the rules of the mixture.

    Args:
        hours: by language and dataset, weighted. dataset_shares: by dataset; None without one of its own.
    """
    present = sorted({dataset for by_dataset in hours.values() for dataset in by_dataset})
    own = {dataset: share for dataset in present if (share := dataset_shares[dataset]) is not None}
    rest = 1.0 - sum(share for share in dataset_shares if share is not None)
    parts = [([dataset], share) for dataset, share in own.items()]
    others = [dataset for dataset in present if dataset not in own]
    parts += [(others, rest)] if others else []
    total = sum(share for _, share in parts)
    shares: dict[tuple[int, int], float] = {}
    for datasets, share in parts:
        amounts = {
            language: {dataset: by_dataset[dataset] for dataset in datasets if dataset in by_dataset}
            for language, by_dataset in hours.items()
        }
        spoken = [language for language, by_dataset in amounts.items() if by_dataset]
        of_languages = language_shares([sum(amounts[language].values()) for language in spoken], config)
        for language, of_language in zip(spoken, of_languages, strict=True):
            whole = sum(amounts[language].values())
            for dataset, amount in amounts[language].items():
                shares[language, dataset] = share / total * of_language * amount / whole
    return shares


def language_shares(hours: Sequence[float], config: MixtureConfig) -> list[float]:
    """Shares of languages with these hours; they add up to 1."""
    powers = [1.0 if config.balanced_languages else amount ** (1 / config.temperature) for amount in hours]
    return [power / sum(powers) for power in powers]
