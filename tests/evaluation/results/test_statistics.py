"""Intervals, paired tests and corrections against what is known of them."""

import numpy as np
import pytest

from evaluation.listening.agreement import krippendorff_alpha
from evaluation.results import statistics


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        # Skewed as error rates are: most utterances without an error.
        values = generator.binomial(1, 0.3, 60) * generator.exponential(0.2, 60)
        estimate = statistics.mean(values)
        assert estimate.low <= estimate.value <= estimate.high and estimate.n == 60
        held += estimate.low <= 0.06 <= estimate.high
    assert 85 <= held <= 100


def test_a_ratio_is_of_sums_and_moves_with_long_utterances() -> None:
    estimate = statistics.ratio([0, 0, 10], [10, 10, 10])
    assert estimate.value == pytest.approx(1 / 3) and estimate.low == 0.0 and estimate.high == 1.0
    assert statistics.ratio([1, 0], [1, 99]).value == pytest.approx(0.01)


def test_what_cannot_vary_has_no_width_and_one_value_no_interval() -> None:
    assert statistics.mean([0.0] * 20) == statistics.Estimate(0.0, 0.0, 0.0, 20)
    alone = statistics.mean([0.5])
    assert (alone.value, alone.n) == (0.5, 1) and np.isnan([alone.low, alone.high]).all()
    assert np.isnan(statistics.mean([]).value) and statistics.mean([]).n == 0
    assert statistics.mean([1.0, 2.0, 3.0]) == statistics.mean([1.0, 2.0, 3.0])


def test_the_paired_test_sees_what_is_there_and_not_what_is_not() -> None:
    generator = np.random.default_rng(2)
    base = generator.exponential(0.1, 60)
    better = base - generator.uniform(0, 0.05, 60)
    assert statistics.paired_p(base, better) < 0.001
    assert statistics.paired_p(base, base) == 1.0 == statistics.paired_p([0.1], [0.9]) == statistics.paired_p([], [])
    # The signs of two differences can fall in four ways, of which two are as extreme.
    assert statistics.paired_p([1.0, 1.0], [0.0, 0.0]) == pytest.approx(0.5)
    draws = generator.normal(0, 1, (40, 2, 20))
    false_alarms = sum(statistics.paired_p(a, b, seed=i) < 0.05 for i, (a, b) in enumerate(draws))
    assert false_alarms <= 7


def test_holm_steps_down() -> None:
    # Holm (1979): sorted .005 .01 .03 .04 become .02 .03 .06 .06, never falling.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []
    assert statistics.deviation([1.0]) is None and statistics.deviation([1.0, 3.0]) == pytest.approx(2**0.5)


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    # Krippendorff 2011, example D: four observers, twelve units, missing values.
    n = np.nan
    ratings = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
            [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
        ]
    )
    assert krippendorff_alpha(ratings, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(ratings, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(ratings, "interval") == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha(np.array([[1.0, 2, 5], [1, 2, 5]])) == 1.0
    assert np.isnan(krippendorff_alpha(np.array([[3.0, 3], [3, 3]])))
    assert np.isnan(krippendorff_alpha(np.array([[1.0, n], [n, 2]]))) and np.isnan(
        krippendorff_alpha(np.full((2, 2), n))
    )
