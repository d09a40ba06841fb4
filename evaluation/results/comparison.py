"""Rows of scores to tables: each system's score with its interval, and a verdict on every two systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from evaluation.metrics.error_rates import Errors, all_wrong
from evaluation.results.statistics import Estimate, deviation, holm, mean, paired_p, ratio

Row = dict[str, Any]
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Metric:
    """`scale` turns a value into what the report prints (percent); `lower` is whether less is better."""

    key: str
    title: str
    lower: bool
    scale: float
    digits: int


METRICS: dict[str, Metric] = {
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
COMPARED = ("official", "strict", "similarity", "dnsmos", "emotion", "followed")


@dataclass(frozen=True)
class Score:
    """One cell. `seed_deviation`: standard deviation between seeds, where there are several. Values are unscaled."""

    benchmark: str
    group: str
    system: str
    metric: str
    estimate: Estimate
    seed_deviation: float | None


@dataclass(frozen=True)
class Verdict:
    """Two systems on the same utterances. `difference` is first minus second; `p` is Holm's over the whole table."""

    benchmark: str
    group: str
    metric: str
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


def _value(row: Row, metric: str) -> tuple[float, float] | None:
    """(numerator, denominator) of a row, None where it does not count."""
    is_ok = row["status"] == "ok"
    if metric == "official":
        counted = (row.get("errors") or {}).get("official")
        return (Errors(**counted).rate, 1.0) if is_ok and counted else None
    if metric == "strict":
        if row.get("errors"):
            strict = Errors(**row["errors"]["strict"])
        elif not is_ok and row.get("wants_errors", True):
            strict = all_wrong(row["text"], row["language"])
        else:
            return None
        return float(strict.total), float(strict.length)
    if metric.startswith("followed"):
        if "followed" not in row:
            return None
        verdict = row["followed"]
        if verdict is None:
            filled = {"followed_nulls_false": 0.0, "followed_nulls_true": 1.0}.get(metric)
            return None if filled is None else (filled, 1.0)
        return float(verdict), 1.0
    if metric.startswith("emotion"):
        heard = row.get("emotion")
        level = metric.removeprefix("emotion").removeprefix("_")
        return (float(heard["heard"] == heard["wanted"]), 1.0) if heard and level in ("", heard["level"]) else None
    value = (row.get("dnsmos") or {}).get("ovr") if metric == "dnsmos" else row.get(metric)
    return None if value is None else (float(value), 1.0)


def values_of(rows: Sequence[Row], metric: str) -> dict[str, tuple[float, float]]:
    """(numerator, denominator) by utterance, means over its seeds."""
    gathered: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = _value(row, metric)
        if value is not None:
            gathered.setdefault(row["id"], []).append(value)
    return {id_: (float(np.mean([n for n, _ in v])), v[0][1]) for id_, v in gathered.items()}


def _estimate(values: Mapping[str, tuple[float, float]], metric: str) -> Estimate:
    numerators = [numerator for numerator, _ in values.values()]
    if metric == "strict":
        return ratio(numerators, [denominator for _, denominator in values.values()])
    return mean(numerators)


def groups_of(rows: Sequence[Row]) -> list[str]:
    """Groups in the order in which they come."""
    return list(dict.fromkeys(row["group"] for row in rows))


def scores_of(benchmark: str, system: str, rows: Sequence[Row]) -> list[Score]:
    """Every metric that was measured, by group."""
    scores = []
    for group in groups_of(rows):
        mine = [row for row in rows if row["group"] == group]
        seeds = sorted({row["seed"] for row in mine})
        for metric in METRICS:
            values = values_of(mine, metric)
            if not values:
                continue
            by_seed = []
            for seed in seeds:
                own = values_of([row for row in mine if row["seed"] == seed], metric)
                if own:
                    top, below = (sum(v[i] for v in own.values()) for i in (0, 1))
                    by_seed.append(top / below if below else 0.0)
            scores.append(Score(benchmark, group, system, metric, _estimate(values, metric), deviation(by_seed)))
    return scores


def verdicts_of(rows: Mapping[tuple[str, str], Sequence[Row]]) -> list[Verdict]:
    """Verdicts on every two systems of every benchmark; `rows` by (benchmark, system). Holm's correction is over all."""
    found: list[Verdict] = []
    for benchmark in dict.fromkeys(name for name, _ in rows):
        systems = [system for name, system in rows if name == benchmark]
        for first, second in combinations(systems, 2):
            a, b = rows[(benchmark, first)], rows[(benchmark, second)]
            for group in groups_of(a):
                for metric in COMPARED:
                    one = values_of([row for row in a if row["group"] == group], metric)
                    other = values_of([row for row in b if row["group"] == group], metric)
                    both = [id_ for id_ in one if id_ in other]
                    if not both:
                        continue
                    left, right = [one[id_][0] for id_ in both], [other[id_][0] for id_ in both]
                    gaps = [x - y for x, y in zip(left, right, strict=True)]
                    gap = _estimate({id_: (g, one[id_][1]) for id_, g in zip(both, gaps, strict=True)}, metric)
                    p = paired_p(left, right)
                    found.append(Verdict(benchmark, group, metric, first, second, gap, p, p))
    corrected = holm([verdict.raw_p for verdict in found])
    return [
        Verdict(v.benchmark, v.group, v.metric, v.first, v.second, v.difference, v.raw_p, p)
        for v, p in zip(found, corrected, strict=True)
    ]


def counts_of(rows: Sequence[Row]) -> dict[str, int]:
    """Utterances by what became of them; files of another rate than 16 kHz, empty hypotheses, verdicts that are none."""
    counts = Counter(row["status"] for row in rows)
    found = {"ok": counts.pop("ok", 0), **dict(sorted(counts.items()))}
    resampled = sum(row["status"] == "ok" and row["rate"] != 16000 for row in rows)
    empty = sum(
        row["status"] == "ok" and row["hypothesis"] is not None and not row["hypothesis"].strip() for row in rows
    )
    no_reference = sum(
        row["status"] == "ok" and row["reference"] is not None and row["similarity"] is None for row in rows
    )
    extra = {"resampled": resampled, "empty hypothesis": empty, "no similarity": no_reference}
    nulls = Counter(row["verdict"] for row in rows if "followed" in row and row["followed"] is None)
    extra |= {f"no verdict: {kind}": count for kind, count in sorted(nulls.items())}
    return found | {name: count for name, count in extra.items() if count}
