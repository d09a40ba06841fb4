"""`voxmill train --check`: the plan is what a run does, and what cannot be is refused with one line."""

import re
from pathlib import Path

import numpy as np
import pytest

from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from training.curriculum.check import check, state_gigabytes
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.sample_stream import SampleStream
from voxmill.cli.app import run
from voxmill.core.errors import UserError


def recipe(encoded: Path, *overrides: str, name: str = "tiny_stage2") -> Recipe:
    return load_recipe(name, [f"datasets.main.path={encoded}", f"init={CHECKPOINT}", *overrides])


def test_the_plan_is_what_the_stream_then_does(encoded: Path) -> None:
    settings = recipe(encoded, "steps=60")
    corpus, plan = check(settings)
    stream = SampleStream(corpus, settings, TextTokenizer.from_folder(CHECKPOINT))
    used = sum(s.length for _ in range(60) for row in stream.next_step() for s in row)
    assert plan.positions == 60 * 4 * 512 and used <= plan.positions
    # Rows are small here (512), so they fill less than the plan supposes.
    assert used / plan.positions > 0.95
    done = stream.mixture.epochs()
    for name, epochs in plan.epochs().items():
        assert done[name] == pytest.approx(epochs, rel=0.15, abs=0.6), name


def test_memory_is_divided_as_zero_divides_it(encoded: Path) -> None:
    count = 2_290_004_544
    gigabytes = {
        zero: state_gigabytes(count, recipe(encoded, f"engine.zero={zero}", "engine.dtype=bfloat16"), 8)
        for zero in (0, 1, 2, 3)
    }
    assert gigabytes[0] == pytest.approx(16 * count / 1e9)
    assert gigabytes[1] == pytest.approx((4 + 12 / 8) * count / 1e9)
    assert gigabytes[2] == pytest.approx((2 + 16 / 8) * count / 1e9)
    assert gigabytes[3] == pytest.approx(18 / 8 * count / 1e9)


def test_memory_counts_what_is_trained_and_the_average(encoded: Path) -> None:
    full, adapters = 2_290_004_544, 20_000_000
    lora = recipe(encoded, "engine.zero=1", "engine.dtype=bfloat16", name="tiny_finetune_lora")
    assert state_gigabytes(full, lora, 8, trained=adapters) == pytest.approx(
        (2 * (full + adapters) + (2 + 12 / 8) * adapters) / 1e9
    )
    averaged = recipe(encoded, "engine.zero=2", "engine.dtype=bfloat16", "optimizer.ema=0.999")
    assert state_gigabytes(full, averaged, 8) == pytest.approx((2 + (4 + 12 + 4) / 8) * full / 1e9)
    whole = recipe(encoded, "engine.zero=0", "engine.dtype=float32"), recipe(encoded, "engine.zero=1")
    assert [state_gigabytes(full, settings, 1) for settings in whole] == pytest.approx(
        [16 * full / 1e9, 20 * full / 1e9]
    )


def test_a_plan_of_adapters_tells_what_is_trained(encoded: Path) -> None:
    _, plan = check(recipe(encoded, name="tiny_finetune_lora"))
    assert 0 < plan.trained < plan.parameters / 2


def test_the_command_prints_the_plan(encoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--check", "tiny_stage3", f"init={CHECKPOINT}", f"datasets.main.path={encoded}"]
    assert run(arguments) == 0
    output = capsys.readouterr().out
    assert re.search(r"stage 3: 40 steps, 4 rows of 512 positions", output)
    assert "controllable/en/main" in output and "M parameters" in output
    assert "of the seconds drawn, in clips: 0.0% over 30 s, 0.0% over 60 s, 0.0% over 180 s" in output


def test_the_plan_tells_how_much_is_in_long_clips(encoded: Path) -> None:
    corpus, plan = check(recipe(encoded))
    limit = float(np.median(corpus.seconds))
    drawn, long = 0.0, 0.0
    for stream in plan.streams:
        lengths = corpus.seconds[stream.clips]
        drawn += plan.seconds[stream.name]
        long += plan.seconds[stream.name] * lengths[lengths > limit].sum() / lengths.sum()
    assert plan.share_over(limit, corpus) == pytest.approx(long / drawn) and 0.3 < long / drawn < 0.9


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("max_positions=30", "too short for clip"),
        ("datasets.main.path=/nowhere", "voxmill annotate"),
        ("init=/nowhere", "config.json"),
        ("clips.languages=[de]", "no clip can be used"),
        ("datasets.other={path: /nowhere}", "datasets.other"),
    ],
)
def test_what_cannot_be_is_refused(encoded: Path, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check(recipe(encoded, override))


def test_a_context_longer_than_the_model_s_is_refused(encoded: Path) -> None:
    settings = recipe(encoded, "max_positions=1024", "packing.positions=1024")
    with pytest.raises(UserError, match="512 position embeddings"):
        check(settings)
