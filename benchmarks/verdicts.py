"""Verdicts of `voxmill evaluate` where the truth is known: how often they are wrong, and how often they are missed.

    python benchmarks/verdicts.py [--languages 24] [--systems 3] [--repeats 400]

Error rates of utterances are drawn as those of real systems lie: hard and easy sentences that all systems share, most
utterances with few errors, one in a hundred a loop of three times its text. A table of all languages and pairs is
tested and corrected as the report's. `no difference`: systems are alike, and a table with any verdict is an error
(family-wise). `points apart`: each system makes that many points more errors than the one before, and the share of
pairs that have a verdict, the right one, is the power.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from evaluation.results.comparison import SIGNIFICANT  # noqa: E402
from evaluation.results.statistics import holm, mean, paired_p, seed_variance, with_seeds  # noqa: E402

WORDS = 12
LOOPS, LOOP_LENGTH = 0.01, 3.0
EASY = 0.05
"""Error rate of the best system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Of so many utterances a language: tables with a wrong verdict where there is no difference, and the power."""

    utterances: int
    family_wise_error: float
    power: float
    wrong: float
    seconds_a_table: float


def rates(generator: np.random.Generator, systems: int, utterances: int, apart: float) -> np.ndarray:
    """Error rates [systems, utterances] of one language; the mean rises by `apart` from system to system."""
    difficulty_U = generator.beta(2, 2, utterances) * 2
    rates_SU = np.empty((systems, utterances))
    for system in range(systems):
        errors_U = generator.binomial(WORDS, np.clip((EASY + apart * system) * difficulty_U, 0, 1)) / WORDS
        rates_SU[system] = errors_U + LOOP_LENGTH * generator.binomial(1, LOOPS, utterances)
    return rates_SU


def table(generator: np.random.Generator, languages: int, systems: int, utterances: int, apart: float) -> np.ndarray:
    """Verdicts [pairs of all languages] of one table: 1 the truly better one, -1 the other one, 0 none."""
    raw, signs = [], []
    comparisons = languages * systems * (systems - 1) // 2
    for _ in range(languages):
        rates_SU = rates(generator, systems, utterances, apart)
        for first, second in combinations(range(systems), 2):
            raw.append(paired_p(rates_SU[first], rates_SU[second], comparisons=comparisons))
            signs.append(np.sign(rates_SU[second].mean() - rates_SU[first].mean()))
    return np.where(np.array(holm(raw)) < SIGNIFICANT, np.array(signs), 0)


def power(languages: int, systems: int, utterances: int, apart: float, repeats: int, seed: int = 0) -> Power:
    """How often tables are right: `repeats` without a difference, a tenth as many with one."""
    generator = np.random.default_rng(seed)
    clock = time.perf_counter()
    alike = [table(generator, languages, systems, utterances, 0.0) for _ in range(repeats)]
    seconds = (time.perf_counter() - clock) / repeats
    differing = np.stack(
        [table(generator, languages, systems, utterances, apart) for _ in range(max(repeats // 10, 1))]
    )
    return Power(
        utterances=utterances,
        family_wise_error=float(np.mean([verdicts.any() for verdicts in alike])),
        power=float(np.mean(differing == 1)),
        wrong=float(np.mean(differing == -1)),
        seconds_a_table=seconds,
    )


def coverage(seeds: int, repeats: int, utterances: int = 50, seed: int = 0) -> tuple[float, float]:
    """How often 95 % intervals hold the mean over all seeds: (of utterances alone, widened by the seeds).

    A seed moves all utterances by as much as the choice of utterances moves their mean.
    """
    generator = np.random.default_rng(seed)
    alone = widened = 0
    for _ in range(repeats):
        own_SU = 0.1 + generator.normal(0, 0.1, utterances) + generator.normal(0, 0.05, (seeds, utterances))
        values_SU = own_SU + generator.normal(0, 0.1 / np.sqrt(utterances), (seeds, 1))
        estimate = mean(values_SU.mean(axis=0))
        effect = seed_variance(values_SU)
        assert effect is not None
        wider, _ = with_seeds(estimate, [effect])
        alone += estimate.low <= 0.1 <= estimate.high
        widened += wider.low <= 0.1 <= wider.high
    return alone / repeats, widened / repeats


def main() -> None:
    """Prints the tables and, as its last line, JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", type=int, default=24)
    parser.add_argument("--systems", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=400, help="tables without a difference")
    parser.add_argument("--points", type=float, default=30.0, help="percent between one system and the next")
    parser.add_argument("--utterances", type=int, nargs="+", default=[20, 50, 100], help="of each language")
    arguments = parser.parse_args()
    print(f"{'utterances':>10} {'family-wise error':>18} {'power':>7} {'wrong':>7} {'s a table':>10}")
    rows = []
    for utterances in arguments.utterances:
        row = power(arguments.languages, arguments.systems, utterances, arguments.points / 100, arguments.repeats)
        rows.append(row)
        print(
            f"{row.utterances:>10} {row.family_wise_error:>18.3f} {row.power:>7.3f} {row.wrong:>7.3f} "
            f"{row.seconds_a_table:>10.2f}"
        )
    print(f"\n{'seeds':>10} {'coverage of utterances alone':>30} {'with the seeds':>15}")
    covered = {}
    for seeds in (2, 3, 5):
        covered[seeds] = coverage(seeds, arguments.repeats)
        print(f"{seeds:>10} {covered[seeds][0]:>30.3f} {covered[seeds][1]:>15.3f}")
    print(json.dumps({"verdicts": [asdict(row) for row in rows], "coverage": covered}))


if __name__ == "__main__":
    main()
