"""Tables from scores: seeds, verdicts, and the published rows beside them."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.config import EvaluateConfig
from evaluation.results.comparison import scores_of, verdicts_of
from evaluation.results.published import PublishedRow, _tables, published
from evaluation.results.report import examples, highlighted, interval_text
from evaluation.results.statistics import Estimate
from tests.evaluation.utterances import transcribed
from voxmill.core.config import load_config
from voxmill.core.errors import UserError


def test_several_seeds_are_one_utterance_with_a_spread() -> None:
    rows = [transcribed(f"u{i}", wrong=2 * seed, seed=seed) for seed in (0, 1) for i in range(5)]
    scores = {score.metric: score for score in scores_of("b", "s", rows)}
    assert scores["official"].estimate.n == 5 and scores["official"].estimate.value == pytest.approx(0.1)
    assert scores["official"].seed_deviation == pytest.approx(0.2 / 2**0.5)
    assert scores["similarity"].seed_deviation == 0.0
    single = {score.metric: score for score in scores_of("b", "s", rows[:5])}
    assert single["official"].seed_deviation is None


def test_verdicts_name_the_better_system_on_the_same_utterances_only() -> None:
    generator = np.random.default_rng(0)
    worse = [transcribed(f"u{i}", wrong=int(generator.integers(3, 6)), similarity=0.3) for i in range(40)]
    better = [transcribed(f"u{i}", wrong=int(generator.integers(0, 3)), similarity=0.31) for i in range(45)]
    verdicts = {v.metric: v for v in verdicts_of({("b", "worse"): worse, ("b", "better"): better})}
    assert verdicts["strict"].better == "better" and verdicts["strict"].sentence == "better is better"
    assert verdicts["strict"].difference.n == 40 and verdicts["strict"].difference.low > 0
    assert verdicts["similarity"].better == "better" and verdicts["strict"].p >= verdicts["strict"].raw_p
    # A system that fails half the time is worse strictly; officially its failures are not there.
    failing = [transcribed(f"u{i}", wrong=0, status="failed" if i % 2 else "ok") for i in range(40)]
    perfect = [transcribed(f"u{i}", wrong=0) for i in range(40)]
    both = {v.metric: v for v in verdicts_of({("b", "failing"): failing, ("b", "perfect"): perfect})}
    assert both["strict"].better == "perfect" and both["official"].better is None
    assert both["official"].difference.n == 20 and both["strict"].difference.value == pytest.approx(0.5)


def test_a_table_of_many_languages_can_be_told_apart() -> None:
    """24 languages, 3 systems, 4 metrics, 30 points apart: the smallest p was 0.0576 whatever the data."""
    generator = np.random.default_rng(0)
    languages = [f"l{number:02d}" for number in range(24)]
    wrong = {"a": 0, "b": 3, "c": 6}
    scores = {
        ("b", system): [
            replace(
                transcribed(
                    f"{group}-{i}", min(worse + int(generator.integers(0, 4)), 10), similarity=0.9 - worse / 10
                ),
                group=group,
            )
            for group in languages
            for i in range(14)
        ]
        for system, worse in wrong.items()
    }
    verdicts = verdicts_of(scores)
    assert {v.comparisons for v in verdicts} == {72} and len(verdicts) == 72 * 4
    assert all(v.better == (None if v.metric == "repetition" else min(v.first, v.second)) for v in verdicts)
    strict = next(v for v in verdicts if v.metric == "strict")
    assert strict.difference.low < -0.3 < strict.difference.high and strict.effect < -1
    # Ten utterances cannot pass a family of 72, whatever the data: two in 1,024 choices of signs, times 72.
    few = verdicts_of(
        {key: [one for one in rows if int(one.id[-1]) < 5 and one.id[-2] == "-"] for key, rows in scores.items()}
    )
    assert few and all(v.sentence == "not distinguishable (too few utterances)" for v in few)


def test_metrics_and_benchmarks_are_corrected_apart() -> None:
    rows = {name: [transcribed(f"u{i}", wrong=wrong) for i in range(8)] for name, wrong in (("x", 0), ("y", 4))}
    alone = verdicts_of({("b", name): own for name, own in rows.items()})
    both = verdicts_of({(benchmark, name): own for benchmark in ("b", "c") for name, own in rows.items()})
    assert [v.p for v in both] == [v.p for v in alone] * 2
    by_metric = {v.metric: v for v in alone}
    assert by_metric["strict"].p == by_metric["official"].p == 2 / 256 and by_metric["strict"].comparisons == 1


def test_a_lucky_seed_is_no_verdict() -> None:
    """Two seeds of one system that differ as much as two systems do: neither is better."""
    rows = {
        name: [transcribed(f"u{i}", wrong=wrong[seed], seed=seed) for seed in (0, 1) for i in range(30)]
        for name, wrong in (("x", (1, 5)), ("y", (2, 8)))
    }
    verdict = next(v for v in verdicts_of({("b", n): own for n, own in rows.items()}) if v.metric == "strict")
    assert verdict.better is None and verdict.difference.low < 0 < verdict.difference.high
    steady = {
        name: [transcribed(f"u{i}", wrong=wrong, seed=seed) for seed in (0, 1) for i in range(30)]
        for name, wrong in (("x", 3), ("y", 5))
    }
    verdict = next(v for v in verdicts_of({("b", n): own for n, own in steady.items()}) if v.metric == "strict")
    assert verdict.better == "x"
    # The cell's interval holds for other seeds, too: 10 and 50 % are no 30 % without a width.
    estimate = next(s.estimate for s in scores_of("b", "x", rows["x"]) if s.metric == "strict")
    assert estimate.low < 0.1 and estimate.high > 0.5


def test_the_published_rows_are_the_reports() -> None:
    rows = published("seed-tts-eval", ["test-en"])
    ours = PublishedRow(source="Table 3", system="VoxCPM2", group="test-en", official=1.84, similarity=75.3)
    assert ours in rows
    assert all(row.group == "test-en" for row in rows) and published("texts", ["en"]) == []
    rates = [row.official for row in _voxcpm2("thirty-languages") if row.official is not None]
    # The report's own average over the 30 languages.
    assert len(rates) == 30 and round(sum(rates) / 30, 2) == 1.68
    assert len(_voxcpm2("minimax-mls")) == 24


def _voxcpm2(benchmark: str) -> list[PublishedRow]:
    groups = [row.group for row in _tables()[benchmark]]
    return [row for row in published(benchmark, groups) if row.system == "VoxCPM2"]


def test_examples_are_the_best_the_middle_and_the_worst_and_safe_to_show() -> None:
    rows = [transcribed(f"u{i}", wrong=i) for i in (3, 0, 9, 5, 1)]
    assert [(place, one.id) for place, one in examples(rows)] == [("best", "u0"), ("median", "u3"), ("worst", "u9")]
    assert examples([transcribed("x", 0, status="missing")]) == []
    hostile = replace(transcribed("u", 1), text="<b>a</b>", hypothesis="<img src=x>")
    assert "<img" not in highlighted(hostile) and "<b>" not in highlighted(hostile) and "<del>" in highlighted(hostile)
    assert interval_text(Estimate(0.1234, 0.1, 0.2, 9), "strict") == "12.34 [10.00, 20.00]"
    assert interval_text(Estimate(float("nan"), float("nan"), float("nan"), 0), "strict") == "-"


def test_an_old_key_names_the_new_one() -> None:
    with pytest.raises(UserError, match="synthesis_workers"):
        load_config(EvaluateConfig, None, ["speakers=3"])


def test_a_mistyped_setting_is_named() -> None:
    assert load_config(EvaluateConfig, None, ["scoring.recognition.beam_size=1"]).scoring.recognition.beam_size == 1
    with pytest.raises(UserError, match="did you mean 'scoring.recognition.beam_size'"):
        load_config(EvaluateConfig, None, ["scoring.recognition.beamsize=1"])
