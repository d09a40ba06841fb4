"""Intervals, paired tests and corrections against what is known of them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.listening.agreement import krippendorff_alpha
from evaluation.results import statistics

ROOT = Path(__file__).resolve().parents[3]


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


def test_a_permutation_test_is_exact_for_few_and_fine_enough_for_many() -> None:
    from scipy import stats

    generator = np.random.default_rng(3)
    for size in (3, 9, 12):
        first, second = generator.normal(0.3, 1, (2, size))
        # scipy tries every choice of signs where it is asked for more than there are.
        expected = stats.permutation_test(
            (first, second), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=2**13
        ).pvalue
        assert statistics.paired_p(first, second) == pytest.approx(expected, abs=1e-12)
    # Utterances that are equal take no part: of 12 differences of one sign, 2 in 4096 choices are as extreme.
    assert statistics.paired_p([1.0] * 12 + [0.5] * 500, [0.0] * 12 + [0.5] * 500) == 2 / 4096
    # As small as a family of 1,350 comparisons needs, which 10,000 permutations cannot give.
    apart = generator.normal(0.3, 0.1, 40)
    p = statistics.paired_p(apart, np.zeros(40), comparisons=1350)
    assert p * 1350 < 0.05 and p == 1 / (1350 * 400 + 1)
    # What is not extreme is not asked for long: the same p whatever the family.
    noise = generator.normal(0, 1, (2, 40))
    assert statistics.paired_p(*noise) == statistics.paired_p(*noise, comparisons=10**6)
    first, second = generator.normal(0.35, 1, (2, 60)), generator.normal(0, 1, (2, 60))
    normal = stats.ttest_rel(first[0], second[0]).pvalue
    assert statistics.paired_p(first[0], second[0]) == pytest.approx(normal, rel=0.25)


def test_the_effect_size_is_cohens_of_pairs() -> None:
    # Mean 2, sample deviation 1.
    assert statistics.effect_size([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert np.isnan(
        [statistics.effect_size([0.1] * 7), statistics.effect_size([1.0]), statistics.effect_size([])]
    ).all()


def test_intervals_hold_for_other_seeds_where_seeds_differ() -> None:
    # By hand: seeds' means 0, 1, 2 have variance 1, and utterances do not differ in how seeds move them.
    values_SU = np.array([[0.0, 1, 2], [1, 2, 3], [2, 3, 4]])
    found = statistics.seed_variance(values_SU)
    assert found is not None and found.variance == pytest.approx(1 / 3) and found.freedom == 2
    assert statistics.seed_variance(values_SU[:1]) is None is statistics.seed_variance(values_SU[:, :1])
    estimate = statistics.Estimate(2.0, 1.9, 2.2, 50)
    unchanged, p = statistics.with_seeds(estimate, [statistics.SeedVariance(0.0, 2)])
    assert unchanged == estimate and p == 0.0
    wider, p = statistics.with_seeds(estimate, [found])
    # Nearly all of the variance is the seeds': Student's t with two degrees of freedom, 4.30 of deviations of 0.58.
    assert wider.high - wider.low == pytest.approx(2 * 4.30 / 3**0.5, rel=0.05) and p == pytest.approx(0.074, abs=0.01)
    assert wider.high - wider.value == pytest.approx(2 * (wider.value - wider.low))
    nothing_varies = statistics.Estimate(2.0, 2.0, 2.0, 50)
    assert statistics.with_seeds(nothing_varies, [found])[0].low == pytest.approx(2 - 4.303 / 3**0.5, abs=0.01)
    # Seeds that move each utterance on its own move no mean: noise that the bootstrap has already.
    noise_SU = np.random.default_rng(5).normal(0, 1, (3, 4000))
    noise = statistics.seed_variance(noise_SU)
    assert noise is not None and noise.variance < 3e-4


@pytest.mark.slow
def test_verdicts_are_seldom_wrong_and_seldom_missed() -> None:
    command = [sys.executable, "benchmarks/verdicts.py", "--utterances", "50"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    measured = json.loads(done.stdout.splitlines()[-1])
    (row,) = measured["verdicts"]
    assert row["family_wise_error"] <= 0.05 and row["power"] >= 0.9 and row["wrong"] == 0.0
    alone, widened = measured["coverage"]["3"]
    assert widened > 0.92 > alone


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
