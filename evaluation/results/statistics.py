"""Intervals of scores, and whether two systems differ: bootstrap, paired permutation, Holm.

The bootstrap resamples utterances. Where several seeds were run, an utterance's value is its mean over them, and what
seeds do to all utterances alike widens the interval (`with_seeds`).
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
NORMAL = 1.959963984540054
"""Half the width of a 95 % interval, in standard deviations."""

EXACT_UP_TO = 16
"""Differences whose signs are tried in every way: 65,536 of them."""
PERMUTATIONS = 10_000
"""At least, where there are more differences than that."""
PERMUTATIONS_A_COMPARISON = 400
"""At least, for each comparison of the family: a p of 0.05 after correction is then 20 permutations of the lot."""
ENOUGH = 50
"""So many permutations at least as extreme as the data, and p is known well enough (Besag and Clifford 1991)."""


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


@dataclass(frozen=True)
class SeedVariance:
    """Variance of a score from the choice of its seeds, and that estimate's degrees of freedom."""

    variance: float
    freedom: int


def seed_variance(values_SU: np.ndarray) -> SeedVariance | None:
    """What seeds do to all utterances alike, in the mean of values [seeds, utterances]; None with fewer than two.

    A two-way analysis of variance: what differs between the seeds' means beyond what the utterances' own
    spread over seeds explains (that part is in the bootstrap over utterances already).
    """
    seeds, utterances = values_SU.shape
    if seeds < 2 or utterances < 2:
        return None
    means_S = values_SU.mean(axis=1)
    rest_SU = values_SU - means_S[:, None] - values_SU.mean(axis=0) + values_SU.mean()
    rest = float(np.square(rest_SU).sum()) / ((seeds - 1) * (utterances - 1))
    between = float(means_S.var(ddof=1)) - rest / utterances
    return SeedVariance(max(between, 0.0) / seeds, seeds - 1)


def with_seeds(estimate: Estimate, seeds: Sequence[SeedVariance]) -> tuple[Estimate, float]:
    """(the estimate with an interval that holds for other seeds too, two-sided p of a value of 0).

    The variances of utterances and of seeds add up; with few seeds their sum follows Student's t with the degrees of
    freedom of Welch and Satterthwaite. Without variance between seeds the interval stays as it is and p is 0.
    """
    from scipy import stats

    added = sum(one.variance for one in seeds)
    if added == 0 or not np.isfinite(estimate.low):
        return estimate, 0.0
    own = ((estimate.high - estimate.low) / (2 * NORMAL)) ** 2
    below = own**2 / (estimate.n - 1) + sum(one.variance**2 / one.freedom for one in seeds)
    freedom, deviation = (own + added) ** 2 / below, float(np.sqrt(own + added))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * deviation
    # The interval keeps its lean: error rates reach farther up than down.
    low, high = (
        (estimate.value - half, estimate.value + half)
        if own == 0
        else (
            estimate.value + (bound - estimate.value) * half / (NORMAL * np.sqrt(own))
            for bound in (estimate.low, estimate.high)
        )
    )
    p = 2 * float(stats.t.sf(abs(estimate.value) / deviation, freedom))
    return Estimate(estimate.value, float(low), float(high), estimate.n), p


def effect_size(differences: Values) -> float:
    """Cohen's d of paired differences: their mean in standard deviations; nan where they do not vary."""
    values = np.asarray(differences, dtype=float)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()) / spread if spread > 1e-12 * float(np.abs(values).max(initial=0.0)) else float("nan")


def paired_p(first: Values, second: Values, seed: int = SEED, *, comparisons: int = 1) -> float:
    """Two-sided p of a permutation test on the mean difference of the same utterances.

    Exact up to 16 utterances that differ (of equal ones the sign makes no difference), else by as many permutations
    as the corrected p of a family of `comparisons` needs. 1 where nothing differs, and for a single utterance.
    """
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if len(differences) < 2:
        return 1.0
    differing = differences[differences != 0]
    # Sums in another order differ in their last bits.
    least = abs(float(differing.sum())) - 1e-9 * float(np.abs(differing).sum())
    sums = _SignedSums(differing)
    if len(differing) <= EXACT_UP_TO:
        return float(np.mean(np.abs(sums.of_all()) >= least))
    generator = np.random.default_rng(seed)
    limit = max(PERMUTATIONS, PERMUTATIONS_A_COMPARISON * comparisons)
    done = extreme = 0
    while done < limit and extreme < ENOUGH:
        size = min(PERMUTATIONS, limit - done)
        extreme += int(np.sum(np.abs(sums.drawn(generator, size)) >= least))
        done += size
    return (extreme + 1) / (done + 1)


def least_p(count: int) -> float:
    """The smallest p that `paired_p` can give for so many utterances: two of all ways to choose their signs."""
    return min(2.0 ** (1 - count), 1.0)


class _SignedSums:
    """Sums of values under other signs. Eight signs are a byte, and a table has the sum of each byte's eight values."""

    def __init__(self, values: np.ndarray):
        self._bytes = max(-(-len(values) // 8), 1)
        padded_B8 = np.zeros((self._bytes, 8))
        padded_B8.flat[: len(values)] = values
        signs = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        self._table = signs @ padded_B8.T

    def of_all(self) -> np.ndarray:
        """Every sum of at most 16 values, each equally often."""
        return np.asarray(np.add.outer(self._table[:, 0], self._table[:, 1:].sum(axis=1)))

    def drawn(self, generator: np.random.Generator, size: int) -> np.ndarray:
        """`size` sums under random signs."""
        drawn = generator.integers(0, 256, (size, self._bytes), dtype=np.uint8)
        return np.asarray(self._table[drawn, np.arange(self._bytes)].sum(axis=1))


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
