"""Intervals of scores, and whether two systems differ: bootstrap, paired permutation, Holm.

The bootstrap resamples utterances. Where several seeds were run, an utterance's value is its mean over them, and the
spread between seeds is reported beside the interval, which does not include it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Values = Sequence[float] | np.ndarray

RESAMPLES = 5000
CONFIDENCE = 0.95
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval over `n` utterances; nan where there is nothing to measure, or one thing alone."""

    value: float
    low: float
    high: float
    n: int


def mean(values: Values, seed: int = SEED) -> Estimate:
    """Mean of utterances' values and its 95 % interval: BCa bootstrap, percentile where BCa is undefined."""
    return _bootstrap((np.asarray(values, dtype=float),), _mean, seed)


def ratio(numerators: Values, denominators: Values, seed: int = SEED) -> Estimate:
    """Sum over sum, such as errors over words, with the interval from drawing utterances."""
    return _bootstrap((np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)), _ratio, seed)


def _mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(np.mean(values, axis=axis))


def _ratio(numerators: np.ndarray, denominators: np.ndarray, axis: int = -1) -> np.ndarray:
    below = np.sum(denominators, axis=axis)
    return np.asarray(np.sum(numerators, axis=axis) / np.where(below == 0, 1, below))


def _bootstrap(data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], seed: int) -> Estimate:
    from scipy import stats

    size = len(data[0])
    if size == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value = float(statistic(*data))
    if size == 1:
        return Estimate(value, float("nan"), float("nan"), 1)
    if all(np.ptp(column) == 0 for column in data):
        return Estimate(value, value, value, size)
    interval = (float("nan"), float("nan"))
    for method in ("BCa", "percentile"):
        # BCa is undefined where leaving out any one utterance changes nothing; the plain interval stands in for it.
        with warnings.catch_warnings(action="ignore"):
            result = stats.bootstrap(
                data,
                statistic,
                paired=len(data) > 1,
                vectorized=True,
                n_resamples=RESAMPLES,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(seed),
                batch=500,
            )
        interval = (float(result.confidence_interval.low), float(result.confidence_interval.high))
        if np.isfinite(interval).all():
            break
    return Estimate(value, interval[0], interval[1], size)


def paired_p(first: Values, second: Values, seed: int = SEED) -> float:
    """Two-sided p of a permutation test on the mean difference of the same utterances.

    1 where nothing differs, and for a single utterance, which proves nothing.
    """
    from scipy import stats

    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    assert a.shape == b.shape
    if len(a) < 2 or np.array_equal(a, b):
        return 1.0
    result = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES * 2,
        rng=np.random.default_rng(seed),
        batch=500,
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected over a table by Holm's step-down method (1979), in the same order."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min((len(p_values) - place) * p_values[index], 1.0))
        corrected[index] = highest
    return [float(p) for p in corrected]


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a score between seeds; None with fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
