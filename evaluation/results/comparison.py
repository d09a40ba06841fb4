"""Scores of utterances to tables: each system's score with its interval, and a verdict on every pair of systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from evaluation.metrics.error_rates import all_wrong
from evaluation.metrics.utterance_score import UtteranceScore
from evaluation.results.statistics import Estimate, deviation, holm, mean, paired_p, ratio
from voxmill.core.audio import RATE_16K

SIGNIFICANT = 0.05

MetricKey = Literal[
    "official",
    "strict",
    "similarity",
    "dnsmos",
    "emotion",
    "emotion_high",
    "emotion_low",
    "followed",
    "followed_nulls_false",
    "followed_nulls_true",
]


@dataclass(frozen=True)
class Metric:
    """`scale` turns a value into the unit that the report prints (percent); `lower`: whether less is better."""

    key: MetricKey
    title: str
    lower: bool
    scale: float
    digits: int


METRICS: dict[MetricKey, Metric] = {
    metric.key: metric
    for metric in (
        Metric("official", "error rate, official", True, 100, 2),
        Metric("strict", "error rate, strict", True, 100, 2),
        Metric("similarity", "SIM", False, 100, 1),
        Metric("dnsmos", "DNSMOS", False, 1, 2),
        Metric("emotion", "emotion accuracy", False, 100, 1),
        Metric("emotion_high", "emotion, high", False, 100, 1),
        Metric("emotion_low", "emotion, low", False, 100, 1),
        Metric("followed", "instruction followed", False, 100, 1),
        Metric("followed_nulls_false", "followed, nulls as false", False, 100, 1),
        Metric("followed_nulls_true", "followed, nulls as true", False, 100, 1),
    )
}
COMPARED: tuple[MetricKey, ...] = ("official", "strict", "similarity", "dnsmos", "emotion", "followed")


@dataclass(frozen=True)
class Score:
    """One cell. `seed_deviation`: standard deviation between seeds, None with one seed. Values are unscaled."""

    benchmark: str
    group: str
    system: str
    metric: MetricKey
    estimate: Estimate
    seed_deviation: float | None


@dataclass(frozen=True)
class PairVerdict:
    """Two systems on the same utterances. `difference` is first minus second; `p` is Holm's over the whole table."""

    benchmark: str
    group: str
    metric: MetricKey
    first: str
    second: str
    difference: Estimate
    raw_p: float
    p: float

    @property
    def better(self) -> str | None:
        """The better system, or None: not distinguishable."""
        if not self.p < SIGNIFICANT or self.difference.value == 0:
            return None
        return self.first if (self.difference.value < 0) == METRICS[self.metric].lower else self.second

    @property
    def sentence(self) -> str:
        """For a reader."""
        return f"{self.better} is better" if self.better else "not distinguishable"


class _Fraction(NamedTuple):
    """A metric of one utterance; the denominator weighs it in `strict` and is 1 elsewhere."""

    numerator: float
    denominator: float = 1.0


def _value(score: UtteranceScore, metric: MetricKey) -> _Fraction | None:
    """A metric of an utterance, None where it does not count."""
    if metric == "official":
        counted = score.errors.official if score.errors else None
        return _Fraction(counted.rate) if score.status == "ok" and counted else None
    if metric == "strict":
        if score.errors:
            errors = score.errors.strict
        elif score.status != "ok" and score.wants_errors:
            errors = all_wrong(score.text, score.language)
        else:
            return None
        return _Fraction(float(errors.total), float(errors.length))
    if metric == "similarity":
        return None if score.similarity is None else _Fraction(score.similarity)
    if metric == "dnsmos":
        return None if score.dnsmos is None else _Fraction(score.dnsmos.ovr)
    if metric in ("followed", "followed_nulls_false", "followed_nulls_true"):
        if score.instruction is None:
            return None
        if score.instruction.followed is not None:
            return _Fraction(float(score.instruction.followed))
        return None if metric == "followed" else _Fraction(float(metric == "followed_nulls_true"))
    emotion = score.emotion
    level = metric.removeprefix("emotion").removeprefix("_")
    if emotion is None or level not in ("", emotion.level):
        return None
    return _Fraction(float(emotion.heard == emotion.wanted))


def _values(scores: Sequence[UtteranceScore], metric: MetricKey) -> dict[str, _Fraction]:
    """A metric by utterance, means over its seeds."""
    by_id: dict[str, list[_Fraction]] = {}
    for score in scores:
        value = _value(score, metric)
        if value is not None:
            by_id.setdefault(score.id, []).append(value)
    return {
        id_: _Fraction(float(np.mean([one.numerator for one in values])), values[0].denominator)
        for id_, values in by_id.items()
    }


def _estimate(values: Mapping[str, _Fraction], metric: MetricKey) -> Estimate:
    numerators = [value.numerator for value in values.values()]
    if metric == "strict":
        return ratio(numerators, [value.denominator for value in values.values()])
    return mean(numerators)


def groups_of(scores: Sequence[UtteranceScore]) -> list[str]:
    """Groups in the order in which they come."""
    return list(dict.fromkeys(score.group for score in scores))


def scores_of(benchmark: str, system: str, utterances: Sequence[UtteranceScore]) -> list[Score]:
    """Every metric that was measured, by group."""
    scores = []
    for group in groups_of(utterances):
        members = [one for one in utterances if one.group == group]
        seeds = sorted({one.seed for one in members})
        for metric in METRICS:
            values = _values(members, metric)
            if not values:
                continue
            by_seed = []
            for seed in seeds:
                own = _values([one for one in members if one.seed == seed], metric).values()
                if own:
                    top, below = sum(value.numerator for value in own), sum(value.denominator for value in own)
                    by_seed.append(top / below if below else 0.0)
            scores.append(Score(benchmark, group, system, metric, _estimate(values, metric), deviation(by_seed)))
    return scores


def verdicts_of(scores: Mapping[tuple[str, str], Sequence[UtteranceScore]]) -> list[PairVerdict]:
    """Verdicts on every pair of systems of every benchmark, corrected over all of them by Holm's method.

    Args:
        scores: by (benchmark, system).
    """
    verdicts: list[PairVerdict] = []
    for benchmark in dict.fromkeys(name for name, _ in scores):
        systems = [system for name, system in scores if name == benchmark]
        for first, second in combinations(systems, 2):
            one, other = scores[(benchmark, first)], scores[(benchmark, second)]
            for group in groups_of(one):
                left = [score for score in one if score.group == group]
                right = [score for score in other if score.group == group]
                for metric in COMPARED:
                    compared = compare_pair(left, right, metric)
                    if compared is not None:
                        difference, p = compared
                        verdicts.append(PairVerdict(benchmark, group, metric, first, second, difference, p, p))
    corrected = holm([verdict.raw_p for verdict in verdicts])
    return [replace(verdict, p=p) for verdict, p in zip(verdicts, corrected, strict=True)]


def compare_pair(
    first: Sequence[UtteranceScore], second: Sequence[UtteranceScore], metric: MetricKey
) -> tuple[Estimate, float] | None:
    """(first minus second, uncorrected p) on the utterances that both have a value of; None without any."""
    one, other = _values(first, metric), _values(second, metric)
    both = [id_ for id_ in one if id_ in other]
    if not both:
        return None
    left, right = [one[id_].numerator for id_ in both], [other[id_].numerator for id_ in both]
    differences = {id_: _Fraction(x - y, one[id_].denominator) for id_, x, y in zip(both, left, right, strict=True)}
    return _estimate(differences, metric), paired_p(left, right)


def counts_of(scores: Sequence[UtteranceScore]) -> dict[str, int]:
    """Utterances by status; then those with a rate other than 16 kHz, an empty hypothesis, no SIM, no verdict."""
    statuses = Counter(str(score.status) for score in scores)
    counts = {"ok": statuses.pop("ok", 0), **dict(sorted(statuses.items()))}
    ok = [score for score in scores if score.status == "ok"]
    extra = {
        "resampled": sum(score.rate != RATE_16K for score in ok),
        "empty hypothesis": sum(score.hypothesis is not None and not score.hypothesis.strip() for score in ok),
        "no similarity": sum(score.reference is not None and score.similarity is None for score in ok),
    }
    verdicts = [score.instruction for score in scores if score.instruction is not None]
    nulls = Counter(verdict.reason for verdict in verdicts if verdict.followed is None)
    extra |= {f"no verdict: {kind}": count for kind, count in sorted(nulls.items())}
    return counts | {name: count for name, count in extra.items() if count}
