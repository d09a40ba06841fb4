"""Metrics of a step: sums by group over all samples, the stop predictor's precision and recall, the time left."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from samples.fabricate import CHECKPOINT
from training.curriculum.corpus import read_corpus
from training.curriculum.recipe import LossConfig, load_recipe
from training.curriculum.row_plan import Share
from training.curriculum.sample_plan import PlannedSample
from training.curriculum.telemetry import (
    GroupLosses,
    Groups,
    Pace,
    Spread,
    StepMetrics,
    StopScores,
    Sums,
    ValidationMetrics,
    duration,
    peak_of,
    progress_line,
    total,
)
from voxmill.data.records import Mode

CPU = torch.device("cpu")


def sample(clip: int, mode: Mode) -> PlannedSample:
    return PlannedSample(mode, 0, 0, clip, None, None, 5)


def test_sums_by_mode_language_and_source(encoded: Path) -> None:
    recipe = load_recipe(
        "tiny_stage2", [f"datasets.main.path={encoded}", f"datasets.other={{path: {encoded}}}", f"init={CHECKPOINT}"]
    )
    corpus = read_corpus(recipe)
    groups = Groups(corpus, recipe)
    languages = [corpus.languages[number] for number in corpus.language]
    english, french = languages.index("en"), languages.index("fr")
    other = english + len(corpus) // 2
    assert corpus.dataset[other] == 1 and languages[other] == "en"
    table_MK = groups.zeros(CPU)
    rows = [
        ([sample(english, "basic"), sample(french, "basic")], [[8.0, 3, 1, 1, 0, 0], [16, 4, 2, 0, 1, 1]]),
        ([sample(other, "design")], [[40.0, 5, 5, 1, 3, 0]]),
    ]
    for some, sums in rows:
        groups.add(table_MK, some, torch.tensor(sums, dtype=torch.float64))
    sums_by_name = groups.read(table_MK.tolist())
    assert set(sums_by_name) == {
        "mode/basic",
        "mode/design",
        "language/en",
        "language/fr",
        "source/main",
        "source/other",
    }
    assert sums_by_name["mode/basic"] == sums_by_name["source/main"] == Sums(24, 7, 3, 1, 1, 1)
    assert (
        sums_by_name["language/en"] == Sums(48, 8, 6, 2, 3, 0)
        and sums_by_name["source/other"] == sums_by_name["mode/design"]
    )
    # Sums over counts: the mean of the samples' means would be (8/4 + 16/8 + 40/20) / 3 only by chance.
    assert sums_by_name["language/en"].losses(4, LossConfig()) == GroupLosses(
        loss=48 / 24 + 8 / 6, diffusion=2.0, stop=8 / 6, patches=6
    )
    assert total(sums_by_name) == Sums(64, 12, 8, 2, 4, 1)
    assert total(sums_by_name).stop_scores() == StopScores(stop_precision=2 / 6, stop_recall=2 / 3)


def test_no_meaning_no_number() -> None:
    assert Sums(num_patches=3).stop_scores() == StopScores() and total({}) == Sums()
    assert Sums(num_patches=3, stops_missed=1).stop_scores() == StopScores(stop_recall=0.0)


def test_the_pace_leaves_out_the_first_step() -> None:
    pace = Pace(30)
    assert pace.left(10, 100.0) is None  # however long it took
    assert pace.left(11, 102.0) == pytest.approx(2.0 * 19)
    assert pace.left(12, 106.0) == pytest.approx(3.0 * 18)


def step_metrics() -> StepMetrics:
    return StepMetrics(
        loss=1.25,
        diffusion=1.0,
        stop=0.25,
        stops=StopScores(stop_recall=0.5),
        grad_norm=2.0,
        learning_rate=1e-3,
        target_patches=8,
        positions=16,
        positions_per_second=4.0,
        audio_seconds_per_second=123.4,
        data_seconds=Spread(minimum=0.0, mean=0.1, maximum=0.2),
        read_seconds=Spread(minimum=0.5, mean=0.5, maximum=0.5),
        plan_seconds=0.01,
        teraflops=0.5,
        mfu=None,
        quarantined=0,
        unreadable=0,
        rolled_back=False,
        skipped={"no_text": 2},
        shares={"mode/basic": Share(0.75, 0.5)},
        losses={"mode/basic": GroupLosses(loss=1.25, diffusion=1.0, stop=0.25, patches=8)},
    )


def held_out() -> ValidationMetrics:
    overall = GroupLosses(loss=2.0, diffusion=1.5, stop=0.5, patches=4)
    return ValidationMetrics(overall=overall, stops=StopScores(stop_precision=1.0), losses={"language/en": overall})


def test_a_line_of_metrics_has_no_key_without_a_value() -> None:
    line = replace(step_metrics(), validation=held_out()).as_json()
    assert line["stop_recall"] == 0.5 and "stop_precision" not in line and "mfu" not in line
    assert line["shares"] == {"mode/basic": {"wanted": 0.75, "achieved": 0.5}} and line["skipped"] == {"no_text": 2}
    losses = {"loss": 2.0, "diffusion": 1.5, "stop": 0.5, "patches": 4}
    assert line["validation"] == losses | {"stop_precision": 1.0, "losses": {"language/en": losses}}


def test_lines_for_people() -> None:
    lines = [duration(seconds) for seconds in (40, 720, 7500, 270_000)]
    assert lines == ["40 s", "12 min", "2 h 05 min", "3 d 3 h"]
    metrics = step_metrics()
    assert progress_line(metrics, 1, 9, None) == (
        "step 1/9: loss 1.2500 (diffusion 1.0000, stop 0.2500), 123 s of audio a second"
    )
    whole = progress_line(replace(metrics, mfu=0.451, validation=held_out()), 3, 9, 50.0)
    assert whole.endswith("a second, MFU 45.1%, held-out loss 2.0000, 50 s left")


def test_no_peak_is_guessed(encoded: Path) -> None:
    settings = [f"datasets.main.path={encoded}", f"init={CHECKPOINT}"]
    assert peak_of(load_recipe("tiny_stage2", settings), CPU) is None
    assert peak_of(load_recipe("tiny_stage2", [*settings, "run.peak_tflops=2"]), CPU) == 2e12
