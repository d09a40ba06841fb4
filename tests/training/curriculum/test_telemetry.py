"""What a step says: sums by group over all samples, the stop predictor's precision and recall, what is left to do."""

from pathlib import Path

import pytest
import torch

from samples.fabricate import CHECKPOINT
from training.curriculum.corpus import read_corpus
from training.curriculum.mixture import Draw
from training.curriculum.recipe import load_recipe
from training.curriculum.sample_plan import Shown
from training.curriculum.telemetry import Groups, Pace, Sums, duration, peak_of, progress_line, total

CPU = torch.device("cpu")


def shown(clip: int, mode: str) -> Shown:
    return Shown(Draw(0, 0, mode, clip), (1,), None, 5)  # type: ignore[arg-type]


def test_sums_by_mode_language_and_source(encoded: Path) -> None:
    recipe = load_recipe(
        "tiny_stage2", [f"datasets.main.path={encoded}", f"datasets.other={{path: {encoded}}}", f"init={CHECKPOINT}"]
    )
    corpus = read_corpus(recipe)
    groups = Groups(corpus)
    languages = [corpus.languages[number] for number in corpus.language]
    english, french = languages.index("en"), languages.index("fr")
    other = english + len(corpus) // 2
    assert corpus.dataset[other] == 1 and languages[other] == "en"
    table_MK = groups.zeros(CPU)
    rows = [
        ([shown(english, "basic"), shown(french, "basic")], [[8.0, 3, 1, 1, 0, 0], [16, 4, 2, 0, 1, 1]]),
        ([shown(other, "design")], [[40.0, 5, 5, 1, 3, 0]]),
    ]
    for some, sums in rows:
        groups.add(table_MK, some, torch.tensor(sums, dtype=torch.float64))
    found = groups.read(table_MK.tolist())
    assert set(found) == {"mode/basic", "mode/design", "language/en", "language/fr", "source/main", "source/other"}
    assert found["mode/basic"] == found["source/main"] == Sums(24, 7, 3, 1, 1, 1)
    assert found["language/en"] == Sums(48, 8, 6, 2, 3, 0) and found["source/other"] == found["mode/design"]
    # Sums over counts: the mean of the samples' means would be (8/4 + 16/8 + 40/20) / 3 only by chance.
    assert found["language/en"].losses(4) == {"loss": 48 / 24 + 8 / 6, "diffusion": 2.0, "stop": 8 / 6, "patches": 6}
    assert total(found) == Sums(64, 12, 8, 2, 4, 1)
    assert total(found).stops() == {"stop_precision": 2 / 6, "stop_recall": 2 / 3}


def test_no_meaning_no_number() -> None:
    assert Sums(num_patches=3).stops() == {} and total({}) == Sums()
    assert Sums(num_patches=3, stops_missed=1).stops() == {"stop_recall": 0.0}


def test_the_pace_leaves_out_the_first_step() -> None:
    pace = Pace(30)
    assert pace.left(10, 100.0) is None  # however long it took
    assert pace.left(11, 102.0) == pytest.approx(2.0 * 19)
    assert pace.left(12, 106.0) == pytest.approx(3.0 * 18)


def test_lines_for_people() -> None:
    said = [duration(seconds) for seconds in (40, 720, 7500, 270_000)]
    assert said == ["40 s", "12 min", "2 h 05 min", "3 d 3 h"]
    line = {"loss": 1.25, "diffusion": 1.0, "stop": 0.25, "audio_seconds_per_second": 123.4}
    assert progress_line(line, 1, 9, None) == (
        "step 1/9: loss 1.2500 (diffusion 1.0000, stop 0.2500), 123 s of audio a second"
    )
    whole = progress_line(line | {"mfu": 0.451, "validation": {"loss": 2.0}}, 3, 9, 50.0)
    assert whole.endswith("a second, MFU 45.1%, held-out loss 2.0000, 50 s left")


def test_no_peak_is_guessed(encoded: Path) -> None:
    settings = [f"datasets.main.path={encoded}", f"init={CHECKPOINT}"]
    assert peak_of(load_recipe("tiny_stage2", settings), CPU) is None
    assert peak_of(load_recipe("tiny_stage2", [*settings, "run.peak_tflops=2"]), CPU) == 2e12
