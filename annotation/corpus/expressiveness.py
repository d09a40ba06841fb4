"""How expressive a clip is for its speaker and its language (report section 3.6, 'Selecting expressive audio').

Prosody means little by itself: one voice is lively at a pitch spread at which another is flat. Every measure becomes a
robust z-score (median and MAD) within the clip's speaker and within its language; a small group's centre and width are
drawn towards its parent's (speaker towards language, language towards the whole corpus), so a speaker of one clip is
judged by the language. Pure functions over columns: no audio, no model, cheap enough to run on every selection.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

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


class ExpressivenessConfig(Config):
    """How measures become a score, and which clips are kept by it.

    `limit` caps one measure's z, so that a tracking error is not an emotion. Keep clips by `top_share` (0..1 of all
    that are scored) or by `threshold`, not both; with neither, all are kept.
    """

    speaker_weight: float = 0.5
    """The speaker's share of the score (0..1); the language has the rest."""
    shrinkage: float = 8.0
    """A group of this many clips moves half way to its parent."""
    limit: float = 4.0
    """Largest absolute z of a single measure, so that a tracking error does not count as emotion."""
    top_share: float | None = None
    """Keep only this most expressive share (0..1) of the scored clips; null keeps all."""
    threshold: float | None = None
    """Keep only clips that score at least this; null keeps all. Not together with `top_share`."""


@dataclass(frozen=True)
class Expressiveness:
    """One clip's score in robust standard deviations; 0 is the middle of its speaker and language.

    `score` is None where no measure was available. `percentile` is among all scored clips, 0..1. `parts` are the
    measures' own z (weighted between speaker and language, before the weights of the measures).
    """

    score: float | None
    percentile: float | None
    parts: dict[str, float]


def score_expressiveness(
    columns: Mapping[str, Sequence[float | None]],
    speakers: Sequence[str],
    languages: Sequence[str],
    config: ExpressivenessConfig,
) -> list[Expressiveness]:
    """Scores all clips of a corpus against each other.

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
    # A speaker is judged within a language: a bilingual's two languages have their own middle.
    voices: list[Hashable] = [
        (speaker, language) if speaker else ("", i)
        for i, (speaker, language) in enumerate(zip(speakers, languages, strict=True))
    ]
    total, weights = np.zeros(num), np.zeros(num)
    parts: list[dict[str, float]] = [{} for _ in range(num)]
    for name, (weight, side) in _MEASURES.items():
        if name not in columns:
            continue
        values = np.array([np.nan if value is None else value for value in columns[name]], dtype=np.float64)
        if name == "f0_median_hz":
            # Pitch is heard on a logarithmic scale.
            values = 12 * np.log2(np.where(values > 0, values, np.nan))
        scores = _relative(values, voices, languages, side, config)
        known = np.isfinite(scores)
        total[known] += weight * scores[known]
        weights[known] += weight
        for i in np.flatnonzero(known).tolist():
            parts[i][name] = round(float(scores[i]), 4)
    scored = weights > 0
    score = np.full(num, np.nan)
    score[scored] = total[scored] / weights[scored]
    percentile = _percentiles(score)
    return [
        Expressiveness(round(float(score[i]), 4), round(float(percentile[i]), 4), parts[i])
        if scored[i]
        else Expressiveness(None, None, {})
        for i in range(num)
    ]


def _relative(
    values: np.ndarray,
    voices: Sequence[Hashable],
    languages: Sequence[Hashable],
    side: Literal["more", "away"],
    config: ExpressivenessConfig,
) -> np.ndarray:
    """z of each value between speaker and language, float [N], NaN where the value is."""
    whole = _centre_and_width(values, None, config)
    by_language = _groups(values, languages, lambda _: whole, config)
    language_of = dict(zip(voices, languages, strict=True))
    by_voice = _groups(values, voices, lambda voice: by_language[language_of[voice]], config)
    share = config.speaker_weight
    result = share * _z(values, voices, by_voice, side, config.limit)
    return result + (1 - share) * _z(values, languages, by_language, side, config.limit)


def _groups(
    values: np.ndarray,
    groups: Sequence[Hashable],
    parent: Callable[[Hashable], tuple[float, float]],
    config: ExpressivenessConfig,
) -> dict[Hashable, tuple[float, float]]:
    """Centre and width of every group."""
    rows: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        rows.setdefault(group, []).append(i)
    return {group: _centre_and_width(values[mine], parent(group), config) for group, mine in rows.items()}


def _centre_and_width(
    values: np.ndarray, parent: tuple[float, float] | None, config: ExpressivenessConfig
) -> tuple[float, float]:
    """Median and MAD-based standard deviation, drawn to the parent's by n / (n + shrinkage); widths as logarithms."""
    known = values[np.isfinite(values)]
    if parent is None:
        if not len(known):
            return 0.0, 1.0
        centre = float(np.median(known))
        return centre, _width(known, centre) or 1.0
    if not len(known):
        return parent
    trust = len(known) / (len(known) + config.shrinkage)
    own_centre = float(np.median(known))
    # A group without any spread (one clip, or copies of one) has no width of its own.
    own_width = _width(known, own_centre) or parent[1]
    centre = trust * own_centre + (1 - trust) * parent[0]
    return centre, float(np.exp(trust * np.log(own_width) + (1 - trust) * np.log(parent[1])))


def _width(values: np.ndarray, centre: float) -> float:
    """1.4826 MAD; the standard deviation where more than half of the values are equal; 0 where all are."""
    mad = 1.4826 * float(np.median(np.abs(values - centre)))
    width = mad if mad > 1e-9 else float(values.std())
    return width if width > 1e-9 else 0.0


def _z(
    values: np.ndarray,
    groups: Sequence[Hashable],
    known: Mapping[Hashable, tuple[float, float]],
    side: Literal["more", "away"],
    limit: float,
) -> np.ndarray:
    centre = np.array([known[group][0] for group in groups])
    width = np.array([known[group][1] for group in groups])
    z: np.ndarray = np.clip((values - centre) / width, -limit, limit)
    # |z| of a normal value has the median 0.6745: subtracted and doubled, 'away' has the middle and about the width of
    # 'more', so that a measure of either kind moves the score alike.
    return z if side == "more" else 2 * (np.abs(z) - 0.6745)


def _percentiles(score: np.ndarray) -> np.ndarray:
    """Share of scored clips that score no higher, 0..1, ties in the middle; NaN where there is no score."""
    result = np.full(len(score), np.nan)
    known = np.flatnonzero(np.isfinite(score))
    ordered = np.sort(score[known])
    low = np.searchsorted(ordered, score[known], side="left")
    high = np.searchsorted(ordered, score[known], side="right")
    result[known] = (low + high) / 2 / max(len(known), 1)
    return result


def keep_expressive(scores: Sequence[float | None], config: ExpressivenessConfig) -> list[bool]:
    """Which clips pass the pre-screen; a clip without a score passes only if nothing is asked.

    With `top_share`, exactly the ceiling of that share of the scored clips is kept, ties by order.

    Raises:
        UserError: both `top_share` and `threshold` are set, or the share is not in 0..1.
    """
    if config.top_share is not None and config.threshold is not None:
        raise UserError("expressiveness: top_share and threshold are both set; keep one and set the other to null")
    if config.top_share is not None and not 0 <= config.top_share <= 1:
        raise UserError(f"expressiveness.top_share={config.top_share}: must lie in 0..1, such as 0.3")
    if config.top_share is not None:
        scored = [i for i, score in enumerate(scores) if score is not None]
        count = int(np.ceil(config.top_share * len(scored) - 1e-9))
        best = set(sorted(scored, key=lambda i: (-(scores[i] or 0.0), i))[:count])
        return [i in best for i in range(len(scores))]
    if config.threshold is not None:
        return [score is not None and score >= config.threshold for score in scores]
    return [True] * len(scores)
