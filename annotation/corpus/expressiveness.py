"""How expressive a clip is for its speaker and its language (report section 3.6, 'Selecting expressive audio').

Prosody means little by itself: one voice is lively at a pitch spread at which another is flat. Every measure becomes a
robust z-score (median and MAD) within the clip's speaker and within its language; a small group's centre and width are
drawn towards its parent's (speaker towards language, language towards the whole corpus), so a speaker of one clip is
judged by the language. Pure functions over columns: no audio, no model, cheap enough to run on every selection.

A speaker's middle comes from the speaker's own clips; those of languages and of the corpus, and the distribution of
scores behind a percentile, are norms that are fitted once from counts on fixed grids, which add up exactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from annotation.corpus.grid_counts import GridCounts, cell_of, weighted_median
from voxmill.core.config import Config
from voxmill.core.errors import UserError

# Measure -> (weight, side): more is more expressive, or any distance from the group's middle is.
_MEASURES: dict[str, tuple[float, Literal["more", "away"]]] = {
    "f0_std_semitones": (1.0, "more"),
    "f0_range_semitones": (1.0, "more"),
    "f0_median_hz": (0.75, "away"),
    "energy_std_db": (0.5, "more"),
    "energy_range_db": (0.5, "more"),
    "rate": (0.5, "away"),
    "pause_share": (0.25, "away"),
    "hnr_db": (0.25, "away"),
    "spectral_tilt_db": (0.5, "away"),
    # 1 - P(neutral) of the emotion classifier; left out where that abstains.
    "emotion_intensity": (1.5, "more"),
}

MEASURES = tuple(_MEASURES)
# Cells a unit of each measure's grid: semitones, dB, 1/s, shares. 65,536 cells hold any of them.
_CELLS = {
    "f0_std_semitones": 512,
    "f0_range_semitones": 512,
    "f0_median_hz": 256,
    "energy_std_db": 256,
    "energy_range_db": 256,
    "rate": 512,
    "pause_share": 8192,
    "hnr_db": 256,
    "spectral_tilt_db": 256,
    "emotion_intensity": 8192,
}
SCORE_CELLS = 2048
"""Cells a standard deviation of the scores' grid."""


class ExpressivenessConfig(Config):
    """How measures become a score, and which clips are described by it.

    `limit` caps one measure's z, so that a tracking error is not an emotion. Clips are described by `top_share` (0..1
    of all that are scored) or by `threshold`, not both; with neither, all are.
    """

    speaker_weight: float = 0.5
    """The speaker's share of the score (0..1); the language has the rest."""
    shrinkage: float = 8.0
    """A group of this many clips moves half way to its parent."""
    limit: float = 4.0
    """Largest absolute z of a single measure, so that a tracking error does not count as emotion."""
    top_share: float | None = None
    """Describe only this most expressive share (0..1) of the scored clips, which all stay; null describes all."""
    threshold: float | None = None
    """Describe only clips that score at least this; null describes all. Not together with `top_share`."""


@dataclass(frozen=True)
class Expressiveness:
    """One clip's score in robust standard deviations; 0 is the middle of its speaker and language.

    `score` is None where no measure was available. `percentile` is among all scored clips, 0..1. `parts` are the
    measures' own z (weighted between speaker and language, before the weights of the measures).
    """

    score: float | None
    percentile: float | None
    parts: dict[str, float]


Middle = tuple[float, float]
"""Centre and width of a group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressivenessNorms:
    """Middles of the corpus and of its languages, and how many clips score what.

    corpus: measure to its middle. languages: measure to language to its middle, drawn towards the corpus's. scores:
    cells of `SCORE_CELLS` a unit; empty before the scores are counted.
    """

    corpus: dict[str, Middle]
    languages: dict[str, dict[str, Middle]]
    scores: GridCounts = field(default_factory=lambda: GridCounts(np.zeros(0, np.int64), np.zeros(0, np.int64)))

    def middle(self, measure: str, language: str) -> Middle:
        """Of a language; the corpus's where the norms do not have it."""
        corpus = self.corpus.get(measure, (0.0, 1.0))
        return self.languages.get(measure, {}).get(language, corpus)

    def percentiles(self, scores: np.ndarray) -> np.ndarray:
        """Share of scored clips that score lower, half of those in the same cell, 0..1; NaN where there is none."""
        result = np.full(len(scores), np.nan)
        known = np.isfinite(scores)
        if not self.scores.total:
            return result
        below = np.concatenate([[0], np.cumsum(self.scores.counts)])
        cells = cell_of(scores[known], SCORE_CELLS)
        low = below[np.searchsorted(self.scores.cells, cells, side="left")]
        high = below[np.searchsorted(self.scores.cells, cells, side="right")]
        result[known] = (low + high) / 2 / self.scores.total
        return result


def as_columns(columns: Mapping[str, Sequence[float | None]]) -> dict[str, np.ndarray]:
    """Measures as float64 [N] with NaN for None, pitch on its logarithmic scale."""
    arrays = {}
    for name in MEASURES:
        if name in columns:
            values = np.array([np.nan if value is None else value for value in columns[name]], dtype=np.float64)
            if name == "f0_median_hz":
                values = 12 * np.log2(np.where(values > 0, values, np.nan))
            arrays[name] = values
    return arrays


def count_measures(columns: Mapping[str, np.ndarray], languages: Sequence[str]) -> dict[str, dict[str, GridCounts]]:
    """Counts of every measure by language, which add up over the parts of a corpus.

    Args:
        columns: as `as_columns` gives them.
    """
    names, groups = np.unique(np.asarray(languages, dtype=object).astype(str), return_inverse=True)
    rows = [np.flatnonzero(groups == number) for number in range(len(names))]
    return {
        measure: {
            str(name): counts
            for name, mine in zip(names, rows, strict=True)
            if (counts := GridCounts.of(values[mine], _CELLS[measure])).total
        }
        for measure, values in columns.items()
    }


def fit_norms(counts: Mapping[str, Mapping[str, GridCounts]], config: ExpressivenessConfig) -> ExpressivenessNorms:
    """Norms from the counts of a whole corpus, without those of the scores."""
    corpus: dict[str, Middle] = {}
    languages: dict[str, dict[str, Middle]] = {}
    for measure, by_language in counts.items():
        if not by_language:
            continue
        cells = np.concatenate([one.cells for one in by_language.values()])
        numbers = np.concatenate([one.counts for one in by_language.values()])
        centre, width = _counted_middle(cells / _CELLS[measure], numbers)
        corpus[measure] = centre, width or 1.0
        languages[measure] = {}
        for language, one in sorted(by_language.items()):
            own, own_width = _counted_middle(one.cells / _CELLS[measure], one.counts)
            trust = one.total / (one.total + config.shrinkage)
            languages[measure][language] = _drawn(own, own_width, trust, corpus[measure])
    return ExpressivenessNorms(corpus=corpus, languages=languages)


def _counted_middle(values: np.ndarray, counts: np.ndarray) -> Middle:
    """Median and width of values that occur `counts` times; the width as `_group_middles` has it."""
    centre = weighted_median(values, counts)
    width = 1.4826 * weighted_median(np.abs(values - centre), counts)
    if width <= 1e-9:
        mean = float(np.average(values, weights=counts))
        width = float(np.sqrt(np.average(np.square(values - mean), weights=counts)))
    return centre, width if width > 1e-9 else 0.0


def _drawn(centre: float, width: float, trust: float, parent: Middle) -> Middle:
    """A middle drawn to the parent's, widths as logarithms; a group without any spread has no width of its own."""
    own = width or parent[1]
    return (
        trust * centre + (1 - trust) * parent[0],
        float(np.exp(trust * np.log(own) + (1 - trust) * np.log(parent[1]))),
    )


@dataclass(frozen=True, slots=True)
class Scores:
    """`score`: float [N], NaN where no measure was available; `parts`: z of every measure, float [N] each."""

    score: np.ndarray
    parts: dict[str, np.ndarray]

    def count(self) -> GridCounts:
        """Counts of the scores, for `ExpressivenessNorms.scores`."""
        return GridCounts.of(self.score, SCORE_CELLS)


def score_clips(
    columns: Mapping[str, np.ndarray],
    speakers: Sequence[str],
    languages: Sequence[str],
    norms: ExpressivenessNorms,
    config: ExpressivenessConfig,
) -> Scores:
    """Scores of clips by their own speakers and the norms of their languages; rounded to four digits.

    Args:
        columns: as `as_columns` gives them. speakers: [N]; an empty name is a speaker of its own.
    """
    num = len(speakers)
    voices = _Groups(
        [(name, language) if name else i for i, (name, language) in enumerate(zip(speakers, languages, strict=True))]
    )
    language_of = [languages[row] for row in voices.first]
    total, weights = np.zeros(num), np.zeros(num)
    parts = {}
    for measure, values in columns.items():
        weight, side = _MEASURES[measure]
        of_language = {language: norms.middle(measure, language) for language in set(languages)}
        here = np.array([of_language[language] for language in languages]).reshape(num, 2)
        parent = np.array([of_language[language] for language in language_of]).reshape(len(language_of), 2)
        own = voices.middles(values, parent, config)[voices.number]
        z = config.speaker_weight * _z(values, own, side, config.limit)
        z = z + (1 - config.speaker_weight) * _z(values, here, side, config.limit)
        known = np.isfinite(z)
        total[known] += weight * z[known]
        weights[known] += weight
        parts[measure] = z
    score = np.full(num, np.nan)
    scored = weights > 0
    score[scored] = np.round(total[scored] / weights[scored], 4)
    return Scores(score, parts)


class _Groups:
    """Rows by group. `number`: of each row's group, int [N]; `first`: a row of each group."""

    def __init__(self, keys: Sequence[object]):
        known: dict[object, int] = {}
        self.number = np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)
        self.first = np.unique(self.number, return_index=True)[1].tolist()

    def middles(self, values: np.ndarray, parent: np.ndarray, config: ExpressivenessConfig) -> np.ndarray:
        """Centre and width of every group [G,2], drawn to its parent's [G,2] by n / (n + shrinkage).

        The width is 1.4826 MAD; the standard deviation where more than half of the values are equal; the parent's
        where all are.
        """
        known = np.flatnonzero(np.isfinite(values))
        values, groups, num = values[known], self.number[known], len(self.first)
        sizes = np.bincount(groups, minlength=num)
        some = sizes > 0
        centre = np.zeros(num)
        centre[some] = _medians(values, groups, sizes)
        width = np.zeros(num)
        width[some] = 1.4826 * _medians(np.abs(values - centre[groups]), groups, sizes)
        mean = np.bincount(groups, values, num) / np.maximum(sizes, 1)
        deviation = np.sqrt(np.bincount(groups, np.square(values - mean[groups]), num) / np.maximum(sizes, 1))
        width = np.where(width > 1e-9, width, deviation)
        width = np.where(width > 1e-9, width, parent[:, 1])
        trust = sizes / (sizes + config.shrinkage)
        log_width = trust * np.log(width) + (1 - trust) * np.log(parent[:, 1])
        return np.stack([trust * centre + (1 - trust) * parent[:, 0], np.exp(log_width)], axis=1)


def _medians(values: np.ndarray, groups: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Median of every group that has a value, by number."""
    ordered = values[np.lexsort((values, groups))]
    sizes = sizes[sizes > 0]
    starts = np.cumsum(sizes) - sizes
    medians: np.ndarray = (ordered[starts + (sizes - 1) // 2] + ordered[starts + sizes // 2]) / 2
    return medians


def score_expressiveness(
    columns: Mapping[str, Sequence[float | None]],
    speakers: Sequence[str],
    languages: Sequence[str],
    config: ExpressivenessConfig,
) -> list[Expressiveness]:
    """Scores all clips of a corpus that fits in memory against each other.

    Args:
        columns: measures of `MEASURES`, each [N] with None where it could not be measured; others are an error, absent
            ones are left out.
        speakers: [N]; an empty name is a speaker of its own, never a group with other nameless clips.
        languages: [N].

    Raises:
        ValueError: an unknown measure or columns of different lengths.
    """
    num = len(speakers)
    unknown = set(columns) - set(_MEASURES)
    if unknown:
        raise ValueError(f"unknown measures {sorted(unknown)}; known: {', '.join(MEASURES)}")
    if len(languages) != num or any(len(values) != num for values in columns.values()):
        raise ValueError("all columns must have one value a clip")
    arrays = as_columns(columns)
    norms = fit_norms(count_measures(arrays, languages), config)
    scores = score_clips(arrays, speakers, languages, norms, config)
    ranked = ExpressivenessNorms(corpus=norms.corpus, languages=norms.languages, scores=scores.count())
    percentile = ranked.percentiles(scores.score)
    parts: list[dict[str, float]] = [{} for _ in range(num)]
    for name, z in scores.parts.items():
        for i in np.flatnonzero(np.isfinite(z)).tolist():
            parts[i][name] = round(float(z[i]), 4)
    return [
        Expressiveness(float(scores.score[i]), round(float(percentile[i]), 4), parts[i])
        if np.isfinite(scores.score[i])
        else Expressiveness(None, None, {})
        for i in range(num)
    ]


def _z(values: np.ndarray, middles: np.ndarray, side: Literal["more", "away"], limit: float) -> np.ndarray:
    """z of values [N] by their groups' middles [N,2], NaN where the value is."""
    z: np.ndarray = np.clip((values - middles[:, 0]) / middles[:, 1], -limit, limit)
    # |z| of a normal value has the median 0.6745: subtracted and doubled, 'away' has the middle and about the width of
    # 'more', so that a measure of either kind moves the score alike.
    return z if side == "more" else 2 * (np.abs(z) - 0.6745)


def check_screen(config: ExpressivenessConfig) -> None:
    """The pre-screen's rule.

    Raises:
        UserError: both `top_share` and `threshold` are set, or the share is not in 0..1.
    """
    if config.top_share is not None and config.threshold is not None:
        raise UserError("expressiveness: top_share and threshold are both set; keep one and set the other to null")
    if config.top_share is not None and not 0 <= config.top_share <= 1:
        raise UserError(f"expressiveness.top_share={config.top_share}: must lie in 0..1, such as 0.3")
