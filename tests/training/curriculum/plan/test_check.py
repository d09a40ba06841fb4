"""`voxmill train --check`: the plan is what a run does, and what cannot be is refused with one line."""

import re
from pathlib import Path

import pytest

from model.presets import preset
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from training.curriculum.index import groups as index_groups
from training.curriculum.plan.check import check
from training.curriculum.plan.memory import RecipeMemory, memory_of, shape_of
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


SIZE = preset("voxcpm2")
SHAPE = shape_of(SIZE)
FULL = 2_290_004_544


def states(settings: Recipe, world: int, *, trained: int = FULL) -> float:
    return RecipeMemory(recipe=settings, shape=SHAPE, trained=trained).of_rank(world).states


def test_memory_is_divided_as_zero_divides_it(encoded: Path) -> None:
    held = {
        zero: states(recipe(encoded, f"engine.zero={zero}", "engine.dtype=bfloat16"), 8) / FULL for zero in (0, 1, 2, 3)
    }
    assert held == pytest.approx({0: 16, 1: 4 + 12 / 8, 2: 2 + 16 / 8, 3: 18 / 8})


def test_memory_counts_what_is_trained_and_the_average(encoded: Path) -> None:
    adapters = 20_000_000
    lora = recipe(encoded, "engine.zero=1", "engine.dtype=bfloat16", name="tiny_finetune_lora")
    assert states(lora, 8, trained=adapters) == pytest.approx(2 * (FULL + adapters) + (2 + 12 / 8) * adapters)
    averaged = recipe(encoded, "engine.zero=2", "engine.dtype=bfloat16", "optimizer.ema=0.999")
    assert states(averaged, 8) == pytest.approx((2 + (4 + 12 + 4) / 8) * FULL)
    whole = recipe(encoded, "engine.zero=0", "engine.dtype=float32"), recipe(encoded, "engine.zero=1")
    assert [states(settings, 1) for settings in whole] == pytest.approx([16 * FULL, 20 * FULL])


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage3"])
@pytest.mark.parametrize(("world", "gigabytes"), [(64, 24), (64, 40), (16, 80), (8, 80), (1, 80)])
def test_the_stages_as_they_are_fit(encoded: Path, name: str, world: int, gigabytes: float) -> None:
    settings = recipe(encoded, name=name)
    assert memory_of(settings, SIZE).fits(world, gigabytes * 1e9)


@pytest.mark.parametrize(
    ("overrides", "world", "gigabytes", "change"),
    [
        (["engine.activation_checkpointing=false"], 64, 80, "set engine.activation_checkpointing=0"),
        (["engine.activation_checkpointing=0.2"], 64, 40, "set engine.activation_checkpointing=0"),
        (["engine.zero=1"], 8, 24, "set engine.zero=2"),
        (["engine.zero=0"], 8, 40, "set engine.zero=1"),
        ([], 1, 40, "set engine.offload=true"),
        ([], 8, 20, "set engine.offload=true"),
        (["packing.positions=32768"], 64, 40, "packing.positions="),
        ([], 64, 10, "more ranks, or GPUs with more memory, are needed"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_smallest_change(
    encoded: Path, overrides: list[str], world: int, gigabytes: float, change: str
) -> None:
    memory = memory_of(recipe(encoded, *overrides, name="stage2"), SIZE)
    with pytest.raises(UserError, match=rf"takes .* GB, and a GPU has {gigabytes} GB; .*{change}") as caught:
        memory.refuse_unless_it_fits(world, gigabytes * 1e9)
    changes = [word for word in str(caught.value).split() if word.startswith(("engine.", "packing."))][1:]
    if changes:
        changed = recipe(encoded, *overrides, *changes, name="stage2")
        memory_of(changed, SIZE).refuse_unless_it_fits(world, gigabytes * 1e9)
        assert memory_of(changed, SIZE).spare_recomputing(world, gigabytes * 1e9) == "" or "checkpoint" not in change


def test_less_is_computed_again_where_it_fits(encoded: Path) -> None:
    """The share that is offered fits, a tenth less does not, and what it costs lies between all and nothing."""
    memory = memory_of(recipe(encoded, name="stage2"), SIZE)
    offered = memory.spare_recomputing(64, 80e9)
    key, _, share = offered.partition(" ")[0].partition("=")
    assert key == "engine.activation_checkpointing" and 0 < float(share) < 1

    def of(value: float) -> RecipeMemory:
        return memory_of(recipe(encoded, f"{key}={value}", name="stage2"), SIZE)

    assert of(float(share)).fits(64, 80e9) and not of(round(float(share) - 0.1, 1)).fits(64, 80e9)
    peaks = [of(value).of_rank(64).peak for value in (0, 0.25, 0.5, 0.75, 1)]
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == 5
    assert of(0).of_rank(64) == memory_of(recipe(encoded, f"{key}=false", name="stage2"), SIZE).of_rank(64)
    assert of(1).of_rank(64) == memory.of_rank(64)


def test_a_plan_of_adapters_tells_what_is_trained(encoded: Path) -> None:
    _, plan = check(recipe(encoded, name="tiny_finetune_lora"))
    assert 0 < plan.memory.trained < plan.memory.shape.parameters / 2


def test_the_command_prints_the_plan(encoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--check", "tiny_stage3", f"init={CHECKPOINT}", f"datasets.main.path={encoded}"]
    assert run(arguments) == 0
    output = capsys.readouterr().out
    assert re.search(r"stage 3: 40 steps, 4 rows of 512 positions", output)
    assert "controllable/en/main" in output and "M parameters" in output and "peak" in output
    arguments = [*arguments, "engine.gpu_memory=0.002"]
    assert run(arguments) == 2
    assert re.search(r"each of 1 rank takes .* and a GPU has 0.002 GB; more ranks", capsys.readouterr().err)
    assert "of the seconds drawn, in clips: 0.0% over 30 s, 0.0% over 60 s, 0.0% over 180 s" in output


def test_the_plan_tells_how_much_is_in_long_clips(encoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_groups, "LONG_SECONDS", (4,))
    monkeypatch.setattr("training.curriculum.plan.check.LONG_SECONDS", (4,))
    corpus, plan = check(recipe(encoded))
    drawn, long = 0.0, 0.0
    for stream in plan.streams:
        lengths = corpus.seconds[stream.clips]
        drawn += plan.seconds[stream.name]
        long += plan.seconds[stream.name] * lengths[lengths > 4].sum() / lengths.sum()
    assert plan.shares_over() == pytest.approx({4: long / drawn}) and 0.1 < long / drawn < 0.95


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
