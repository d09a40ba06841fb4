"""Tables from rows: seeds, verdicts, and the published rows beside them."""

from typing import Any

import numpy as np
import pytest

from evaluation.config import EvaluateConfig
from evaluation.results.comparison import scores_of, verdicts_of
from evaluation.results.published import published
from evaluation.results.report import examples, highlighted, shown
from evaluation.results.statistics import Estimate
from voxmill.core.config import load_config
from voxmill.core.errors import UserError


def row(id_: str, wrong: int, *, seed: int = 0, status: str = "ok", similarity: float | None = 0.5) -> dict[str, Any]:
    """Ten words, some of them wrong."""
    counts = {"substitutions": wrong, "deletions": 0, "insertions": 0, "length": 10}
    is_ok = status == "ok"
    return {
        "id": id_,
        "group": "en",
        "language": "en",
        "text": "one two three four five six seven eight nine ten",
        "seed": seed,
        "status": status,
        "errors": {"official": counts, "strict": counts} if is_ok else None,
        "hypothesis": "one two" if is_ok else None,
        "similarity": similarity if is_ok else None,
        "dnsmos": None,
    }


def test_several_seeds_are_one_utterance_and_their_spread_is_told() -> None:
    rows = [row(f"u{i}", wrong=2 * seed, seed=seed) for seed in (0, 1) for i in range(5)]
    found = {score.metric: score for score in scores_of("b", "s", rows)}
    assert found["official"].estimate.n == 5 and found["official"].estimate.value == pytest.approx(0.1)
    assert found["official"].seed_deviation == pytest.approx(0.2 / 2**0.5)
    assert found["similarity"].seed_deviation == 0.0
    single = {score.metric: score for score in scores_of("b", "s", rows[:5])}
    assert single["official"].seed_deviation is None


def test_verdicts_name_the_better_system_on_the_same_utterances_only() -> None:
    generator = np.random.default_rng(0)
    worse = [row(f"u{i}", wrong=int(generator.integers(3, 6)), similarity=0.3) for i in range(40)]
    better = [row(f"u{i}", wrong=int(generator.integers(0, 3)), similarity=0.31) for i in range(45)]
    found = {v.metric: v for v in verdicts_of({("b", "worse"): worse, ("b", "better"): better})}
    assert found["strict"].better == "better" and found["strict"].sentence == "better is better"
    assert found["strict"].difference.n == 40 and found["strict"].difference.low > 0
    assert found["similarity"].better == "better" and found["strict"].p >= found["strict"].raw_p
    # A system that fails half the time is worse strictly; officially its failures are not there.
    failing = [row(f"u{i}", wrong=0, status="failed" if i % 2 else "ok") for i in range(40)]
    perfect = [row(f"u{i}", wrong=0) for i in range(40)]
    both = {v.metric: v for v in verdicts_of({("b", "failing"): failing, ("b", "perfect"): perfect})}
    assert both["strict"].better == "perfect" and both["official"].better is None
    assert both["official"].difference.n == 20 and both["strict"].difference.value == pytest.approx(0.5)


def test_the_published_rows_are_the_reports() -> None:
    rows = published("seed-tts-eval", ["test-en"])
    assert {"system": "VoxCPM2", "source": "Table 3", "group": "test-en", "official": 1.84, "similarity": 75.3} in rows
    assert all(one["group"] == "test-en" for one in rows) and published("texts", ["en"]) == []
    ours = [one for one in published("thirty-languages", _groups("thirty-languages")) if one["system"] == "VoxCPM2"]
    # The report's own average over the 30 languages.
    assert len(ours) == 30 and round(sum(one["official"] for one in ours) / 30, 2) == 1.68
    assert len([one for one in published("minimax-mls", _groups("minimax-mls")) if one["system"] == "VoxCPM2"]) == 24


def _groups(benchmark: str) -> list[str]:
    from evaluation.results.published import _tables

    return [one["group"] for one in _tables()[benchmark]]


def test_examples_are_the_best_the_middle_and_the_worst_and_safe_to_show() -> None:
    rows = [row(f"u{i}", wrong=i) for i in (3, 0, 9, 5, 1)]
    assert [(place, one["id"]) for place, one in examples(rows)] == [("best", "u0"), ("median", "u3"), ("worst", "u9")]
    assert examples([row("x", 0, status="missing")]) == []
    hostile = row("u", 1) | {"text": "<b>a</b>", "hypothesis": "<img src=x>"}
    assert "<img" not in highlighted(hostile) and "<b>" not in highlighted(hostile) and "<del>" in highlighted(hostile)
    assert shown(Estimate(0.1234, 0.1, 0.2, 9), "strict") == "12.34 [10.00, 20.00]"
    assert shown(Estimate(float("nan"), float("nan"), float("nan"), 0), "strict") == "-"


def test_a_mistyped_setting_is_named() -> None:
    assert load_config(EvaluateConfig, None, ["scoring.recognition.beam_size=1"]).scoring.recognition.beam_size == 1
    with pytest.raises(UserError, match="did you mean 'scoring.recognition.beam_size'"):
        load_config(EvaluateConfig, None, ["scoring.recognition.beamsize=1"])
