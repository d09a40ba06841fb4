"""Fits the numbers of `wer_prediction` on clips of which the words are known.

The weights are those of a logistic regression on the share of wrong words, held to the direction of each measure. How
far a score moves towards those of its recording, and the curve, are fitted on scores that each clip gets from a
regression without its own voice, so that they tell what voices and languages cost that nobody has fitted on.
"""

from dataclasses import dataclass, fields

import numpy as np

from annotation.speech.wer_prediction import DIRECTIONS, Fifth, Term, toward_others

PENALTY = 0.02
"""Of squared weights (of measures scaled to one deviation), for each clip."""
FOLDS = 20
"""Voices are left out one by one where there are no more, else in so many groups."""
KNOTS = 6
EDGE = 0.01
"""Share of the clips on either side beyond which a measure counts as the last one within."""
DIGITS = 5
"""Of the numbers of a fit after the point."""
MOST = 1.5
"""Error rates above this count as this: a loop invents any number of words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Clips: measures [N, len(DIRECTIONS)], errors [N], words that were said [N], voices, recordings and seconds [N].

    One without words is not judged: it only is among the others of its recording.
    """

    measures: np.ndarray
    errors: np.ndarray
    words: np.ndarray
    voices: np.ndarray
    recordings: np.ndarray
    seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.errors)

    def take(self, rows: np.ndarray) -> "Examples":
        """Those of a mask [N]."""
        return Examples(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def judged(self) -> np.ndarray:
        """Mask [N] of those of which words are known."""
        return np.asarray(self.words > 0)

    @property
    def rates(self) -> np.ndarray:
        """Error rates, 0 to `MOST`, float [N]."""
        return np.asarray(np.minimum(self.errors / np.maximum(self.words, 1), MOST))


@dataclass(frozen=True, slots=True)
class Regression:
    """Bias and terms of a `WerFit`."""

    bias: float
    terms: tuple[Term, ...]

    def scores(self, measures: np.ndarray) -> np.ndarray:
        """Of clips, float [N]."""
        columns = list(DIRECTIONS)
        score = np.full(len(measures), self.bias)
        for term in self.terms:
            score += term.weight * np.clip(measures[:, columns.index(term.measure)], term.low, term.high)
        return score


def fit_regression(examples: Examples) -> Regression:
    """A logistic regression of the error rate, no weight against its measure's direction."""
    from scipy.optimize import minimize

    low, high = np.quantile(examples.measures, [EDGE, 1 - EDGE], axis=0)
    limited = np.clip(examples.measures, low, high)
    middle, width = limited.mean(axis=0), limited.std(axis=0)
    width[width < 1e-9] = np.inf
    scaled = np.column_stack([np.ones(len(examples)), (limited - middle) / width])
    target, weight = np.minimum(examples.rates, 1.0), _weights(examples)
    bounds = [(None, None), *((0, None) if sign > 0 else (None, 0) for sign in DIRECTIONS.values())]

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        score = scaled @ theta
        penalty = PENALTY * np.append(0.0, theta[1:])
        value = weight @ (np.logaddexp(0, score) - target * score) + penalty @ theta / 2
        return float(value), scaled.T @ (weight * (1 / (1 + np.exp(-score)) - target)) + penalty

    theta = minimize(loss, np.zeros(scaled.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B").x
    weights = theta[1:] / width
    terms = tuple(
        Term(measure=name, low=round(float(a), DIGITS), high=round(float(b), DIGITS), weight=round(float(w), DIGITS))
        for name, a, b, w in zip(DIRECTIONS, low, high, weights, strict=True)
        if round(float(w), DIGITS)
    )
    return Regression(round(float(theta[0] - weights @ middle), DIGITS), terms)


def _weights(examples: Examples) -> np.ndarray:
    """One clip counts as the next but for very short ones, of which the rate says little; together 1."""
    weight = examples.words / (examples.words + 2)
    return np.asarray(weight / weight.sum())


def fit_curve(scores: np.ndarray, examples: Examples) -> tuple[tuple[float, float], ...]:
    """(score, rate), rising: an isotonic regression at `KNOTS` groups of the clips of equal size."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(scores, kind="stable")
    groups = [group for group in np.array_split(order, KNOTS) if len(group)]
    centres = np.array([scores[group].mean() for group in groups])
    weights = np.array([examples.words[group].sum() for group in groups], float)
    capped = np.minimum(examples.errors, MOST * examples.words)
    rates = np.array([capped[group].sum() for group in groups]) / np.maximum(weights, 1)
    rising = isotonic_regression(rates, weights=weights).x
    return tuple(
        (round(float(score), DIGITS), round(float(rate), DIGITS))
        for score, rate, before in zip(centres, rising, [-np.inf, *centres[:-1]], strict=True)
        if score > before + 10**-DIGITS
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    """A regression with its share of the others and its curve; `unseen`: rates [N] without each example's own voice."""

    regression: Regression
    others: float
    curve: tuple[tuple[float, float], ...]
    unseen: np.ndarray

    def predict(self, examples: Examples) -> np.ndarray:
        """Word error rates of clips, float [N]."""
        scores = self.regression.scores(examples.measures)
        return _on_curve(_among_others(scores, examples, self.others), self.curve)


def _on_curve(scores: np.ndarray, curve: tuple[tuple[float, float], ...]) -> np.ndarray:
    places, rates = zip(*curve, strict=True)
    return np.asarray(np.interp(scores, places, rates))


def _among_others(scores: np.ndarray, examples: Examples, share: float) -> np.ndarray:
    moved = scores.copy()
    for recording in np.unique(examples.recordings):
        rows = examples.recordings == recording
        moved[rows] = toward_others(scores[rows], examples.seconds[rows], share)
    return moved


def fit_others(scores: np.ndarray, examples: Examples) -> float:
    """The share of the way to a recording's other clips with which a logistic curve of the score tells rates best."""
    from scipy.optimize import minimize

    judged = examples.judged
    own, far = (_among_others(scores, examples, share)[judged] for share in (0.0, 1.0))
    known = examples.take(judged)
    target, weight = np.minimum(known.rates, 1.0), _weights(known)

    def loss(theta: np.ndarray) -> float:
        score = theta[0] + theta[1] * (own + theta[2] * (far - own))
        return float(weight @ (np.logaddexp(0, score) - target * score))

    found = minimize(loss, [0.0, 1.0, 0.3], bounds=[(None, None), (0, None), (0, 1)], method="L-BFGS-B").x
    return round(float(found[2]), DIGITS)


def fit(examples: Examples) -> Fitted:
    """The regression over all examples, and the rest over scores without each one's own voice."""
    scores = np.zeros(len(examples))
    voices = np.unique(examples.voices)
    for together in np.array_split(voices, min(len(voices), FOLDS)):
        own = np.isin(examples.voices, together)
        scores[own] = fit_regression(examples.take(~own & examples.judged)).scores(examples.measures[own])
    others = fit_others(scores, examples)
    moved = _among_others(scores, examples, others)
    curve = fit_curve(moved[examples.judged], examples.take(examples.judged))
    return Fitted(fit_regression(examples.take(examples.judged)), others, curve, _on_curve(moved, curve))


def fifths(predicted: np.ndarray, errors: np.ndarray, words: np.ndarray) -> tuple[Fifth, ...]:
    """Clips in fifths by their predicted rate [N], with both rates over their words; errors [N], words [N]."""
    capped = np.minimum(errors, MOST * words)
    return tuple(
        Fifth(
            clips=len(rows),
            predicted=round(float(np.average(predicted[rows], weights=words[rows])), 4),
            true=round(float(capped[rows].sum() / words[rows].sum()), 4),
        )
        for rows in np.array_split(np.argsort(predicted, kind="stable"), 5)
        if words[rows].sum()
    )
