"""Scores of utterances to tables: each system's score with its interval, and a verdict on every pair of systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from evaluation.metrics.error_rates import all_wrong
from evaluation.metrics.utterance_score import UtteranceScore
from evaluation.results.statistics import (
    Estimate,
    SeedVariance,
    deviation,
    effect_size,
    holm,
    least_p,
    mean,
    paired_p,
    ratio,
    seed_variance,
    with_seeds,
)
from voxmill.core.audio import RATE_16K

SIGNIFICANT = 0.05

MetricKey = Literal[
    "official",
    "strict",
    "repetition",
    "length_ratio",
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
        Metric("repetition", "clips that repeat", True, 100, 1),
        Metric("length_ratio", "length of transcript", True, 100, 1),
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
COMPARED: tuple[MetricKey, ...] = (
    "official",
    "strict",
    "repetition",
    "similarity",
    "dnsmos",
    "emotion",
    "followed",
)


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
    """Two systems on the same utterances. `difference` is first minus second, its interval for this pair alone.

    `effect` is Cohen's d of the utterances' differences, nan where they do not vary. `p` is Holm's over the family:
    the `comparisons` of one metric in one benchmark, all groups and pairs. `reachable`: whether any data on so many
    utterances could have told the systems apart.
    """

    benchmark: str
    group: str
    metric: MetricKey
    first: str
    second: str
    difference: Estimate
    effect: float
    raw_p: float
    p: float
    comparisons: int
    reachable: bool

    @property
    def better(self) -> str | None:
        """The better system, or None: not distinguishable."""
        if not self.p < SIGNIFICANT or self.difference.value == 0:
            return None
        return self.first if (self.difference.value < 0) == METRICS[self.metric].lower else self.second

    @property
    def sentence(self) -> str:
        """For a reader."""
        if self.better:
            return f"{self.better} is better"
        return "not distinguishable" if self.reachable else "not distinguishable (too few utterances)"


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
    if metric == "repetition":
        return None if score.repetition is None else _Fraction(float(score.repetition.is_repeating))
    if metric == "length_ratio":
        return None if score.repetition is None else _Fraction(score.repetition.length_ratio)
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


def _by_seed(scores: Sequence[UtteranceScore], metric: MetricKey) -> dict[str, dict[int, _Fraction]]:
    """A metric by utterance and seed."""
    by_id: dict[str, dict[int, _Fraction]] = {}
    for score in scores:
        value = _value(score, metric)
        if value is not None:
            by_id.setdefault(score.id, {})[score.seed] = value
    return by_id


def _over_seeds(by_seed: Mapping[int, _Fraction]) -> _Fraction:
    """An utterance's mean over its seeds."""
    return _Fraction(
        float(np.mean([one.numerator for one in by_seed.values()])), next(iter(by_seed.values())).denominator
    )


def _estimate(values: Sequence[_Fraction], metric: MetricKey) -> Estimate:
    numerators = [value.numerator for value in values]
    if metric == "strict":
        return ratio(numerators, [value.denominator for value in values])
    return mean(numerators)


def _seed_variance(by_id: Mapping[str, Mapping[int, _Fraction]]) -> list[SeedVariance]:
    """That of a system's score, of the utterances that have a value with every seed; empty with one seed."""
    seeds = sorted({seed for by_seed in by_id.values() for seed in by_seed})
    whole = [by_seed for by_seed in by_id.values() if len(by_seed) == len(seeds)]
    if not whole:
        return []
    values_SU = np.array([[by_seed[seed].numerator for by_seed in whole] for seed in seeds])
    # Sums over sums: numerators over the mean denominator, whose mean is that ratio.
    scale = float(np.mean([next(iter(by_seed.values())).denominator for by_seed in whole]))
    found = seed_variance(values_SU / scale) if scale else None
    return [found] if found else []


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
            values = _by_seed(members, metric)
            if not values:
                continue
            totals = []
            for seed in seeds:
                own = [by_seed[seed] for by_seed in values.values() if seed in by_seed]
                if own:
                    below = sum(value.denominator for value in own)
                    totals.append(sum(value.numerator for value in own) / below if below else 0.0)
            estimate, _ = with_seeds(
                _estimate([_over_seeds(one) for one in values.values()], metric), _seed_variance(values)
            )
            if METRICS[metric].lower and estimate.low < 0:
                # Few seeds give a wide interval, but nobody makes fewer errors than none.
                estimate = replace(estimate, low=0.0)
            scores.append(Score(benchmark, group, system, metric, estimate, deviation(totals)))
    return scores


@dataclass(frozen=True)
class _Pair:
    """The utterances that two systems both have a value of, by seed; same ids in both, in the same order."""

    benchmark: str
    group: str
    metric: MetricKey
    first: str
    second: str
    left: dict[str, dict[int, _Fraction]]
    right: dict[str, dict[int, _Fraction]]

    @property
    def family(self) -> tuple[str, MetricKey]:
        """What Holm's method corrects together."""
        return self.benchmark, self.metric

    def verdict(self, comparisons: int) -> PairVerdict:
        """Not corrected so far."""
        left = [_over_seeds(by_seed) for by_seed in self.left.values()]
        right = [_over_seeds(by_seed) for by_seed in self.right.values()]
        differences = [_Fraction(x.numerator - y.numerator, x.denominator) for x, y in zip(left, right, strict=True)]
        difference, seeds_p = with_seeds(
            _estimate(differences, self.metric), [*_seed_variance(self.left), *_seed_variance(self.right)]
        )
        # Permuting utterances says nothing of other seeds; the test that does is the larger of both.
        p = max(paired_p([x.numerator for x in left], [y.numerator for y in right], comparisons=comparisons), seeds_p)
        effect = effect_size([one.numerator for one in differences])
        return PairVerdict(
            benchmark=self.benchmark,
            group=self.group,
            metric=self.metric,
            first=self.first,
            second=self.second,
            difference=difference,
            effect=effect,
            raw_p=p,
            p=p,
            comparisons=comparisons,
            reachable=least_p(len(self.left)) < SIGNIFICANT,
        )


def verdicts_of(scores: Mapping[tuple[str, str], Sequence[UtteranceScore]]) -> list[PairVerdict]:
    """Verdicts on every pair of systems of every benchmark, corrected within a benchmark and metric by Holm's method.

    Args:
        scores: by (benchmark, system).
    """
    pairs = [
        pair
        for benchmark in dict.fromkeys(name for name, _ in scores)
        for first, second in combinations([system for name, system in scores if name == benchmark], 2)
        for pair in _pairs(benchmark, first, second, scores[(benchmark, first)], scores[(benchmark, second)])
    ]
    families = Counter(pair.family for pair in pairs)
    verdicts = [pair.verdict(families[pair.family]) for pair in pairs]
    for family, size in families.items():
        numbers = [number for number, pair in enumerate(pairs) if pair.family == family]
        corrected = holm([verdicts[number].raw_p for number in numbers])
        # Holm's method rejects nothing unless the smallest p of all passes with the whole family's size.
        any_reachable = size * min(least_p(len(pairs[number].left)) for number in numbers) < SIGNIFICANT
        for number, p in zip(numbers, corrected, strict=True):
            reachable = verdicts[number].reachable and any_reachable
            verdicts[number] = replace(verdicts[number], p=p, reachable=reachable)
    return verdicts


def _pairs(
    benchmark: str, first: str, second: str, one: Sequence[UtteranceScore], other: Sequence[UtteranceScore]
) -> Iterator[_Pair]:
    for group in groups_of(one):
        left = [score for score in one if score.group == group]
        right = [score for score in other if score.group == group]
        for metric in COMPARED:
            here, there = _by_seed(left, metric), _by_seed(right, metric)
            both = [id_ for id_ in here if id_ in there]
            if both:
                yield _Pair(
                    benchmark,
                    group,
                    metric,
                    first,
                    second,
                    {id_: here[id_] for id_ in both},
                    {id_: there[id_] for id_ in both},
                )


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
