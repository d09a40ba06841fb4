"""A fit finds what matters, and its predictions hold on clips and voices that it has not seen."""

from dataclasses import replace

import numpy as np

from annotation.speech.wer_fitting import Examples, fifths, fit
from annotation.speech.wer_prediction import DIRECTIONS

MATTER = {"log_probability": 1.0, "fast": 1.2}


def made_examples(count: int, seed: int) -> Examples:
    """Clips whose words are wrong with a probability that two measures and the voice set; the others are noise."""
    rng = np.random.default_rng(seed)
    measures = rng.normal(size=(count, len(DIRECTIONS)))
    voices = np.array([f"voice-{seed}-{number}" for number in rng.integers(8, size=count)])
    columns = list(DIRECTIONS)
    score = -0.5 + sum(weight * DIRECTIONS[name] * measures[:, columns.index(name)] for name, weight in MATTER.items())
    words = rng.integers(1, 25, size=count)
    errors = rng.binomial(words, 1 / (1 + np.exp(-score)))
    return Examples(
        measures=measures,
        errors=errors.astype(float),
        words=words.astype(float),
        voices=voices,
        recordings=np.arange(count),
        seconds=np.full(count, 3.0),
    )


def test_predictions_are_true_in_every_fifth_of_unseen_clips() -> None:
    fitted, unseen = fit(made_examples(800, 1)), made_examples(1000, 2)
    curve = fifths(fitted.predict(unseen), unseen.errors, unseen.words)
    assert len(curve) == 5 and sum(row.clips for row in curve) == 1000
    assert all(abs(row.predicted - row.true) <= 0.05 for row in curve)
    assert curve[-1].true - curve[0].true > 0.5


def test_weights_point_the_right_way_and_noise_weighs_little() -> None:
    weights = {term.measure: term.weight for term in fit(made_examples(800, 1)).regression.terms}
    assert all(weight * DIRECTIONS[name] > 0 for name, weight in weights.items())
    others = [abs(weight) for name, weight in weights.items() if name not in MATTER]
    assert min(abs(weights[name]) for name in MATTER) > 0.5 > 0.2 > max(others)


def test_a_measure_that_points_the_wrong_way_is_left_out() -> None:
    examples = made_examples(800, 1)
    turned = examples.measures.copy()
    turned[:, list(DIRECTIONS).index("fast")] *= -1
    fitted = fit(replace(examples, measures=turned))
    assert "fast" not in {term.measure for term in fitted.regression.terms}


def test_recordings_that_fail_as_a_whole_are_told_by_their_other_clips() -> None:
    """What measures do not show, and clips of a recording share, is learnt; those that are not judged count, too."""
    examples, rng = made_examples(1200, 1), np.random.default_rng(5)
    recordings = np.arange(1200) // 8
    hidden = rng.normal(size=150)[recordings]
    measures = examples.measures.copy()
    measures[:, list(DIRECTIONS).index("log_probability")] += rng.normal(size=1200) - hidden
    errors = rng.binomial(examples.words.astype(int), 1 / (1 + np.exp(0.5 - 1.5 * hidden))).astype(float)
    words = np.where(np.arange(1200) % 4 == 0, 0.0, examples.words)
    shared = replace(examples, measures=measures, errors=np.minimum(errors, words), words=words, recordings=recordings)
    fitted = fit(shared)
    assert 0.4 < fitted.others <= 1
    alone = fit(replace(shared, recordings=np.arange(1200)))
    judged = shared.judged

    def miss(rates: np.ndarray) -> float:
        return float(np.square(rates - shared.rates)[judged].mean())

    assert miss(fitted.unseen) < 0.9 * miss(alone.unseen)


def test_the_same_examples_give_the_same_numbers() -> None:
    one, two = (fit(made_examples(300, 3)) for _ in range(2))
    assert one.regression == two.regression and one.curve == two.curve
