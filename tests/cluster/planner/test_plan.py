"""`voxmill plan train`: what fits and what is advised, hours from positions."""

import re

import pytest

from cluster.planner.compute import gpu_hours, position_flops
from cluster.planner.memory import Setup, rank_memory
from cluster.planner.plan import HEADROOM, choices, longest_row, recommended
from model.presets import preset
from training.curriculum.plan.memory import shape_of
from voxmill.cli.app import run

SHAPE = shape_of(preset("voxcpm2"))
GPU = 80e9


def setup(world: int = 8, positions: int = 8192, recompute: bool = False, offload: bool = False) -> Setup:
    return Setup(zero=1, dtype="bfloat16", world=world, positions=positions, recompute=recompute, offload=offload)


def test_the_shape_is_that_of_the_released_model() -> None:
    assert SHAPE.parameters == 2_290_004_544
    assert (SHAPE.encoder.tokens, SHAPE.encoder.kept, SHAPE.decoder.tokens, SHAPE.decoder.kept) == (5, 1, 11, 4)


def test_what_is_advised_fits_and_what_comes_before_it_does_not() -> None:
    for world, gigabytes in ((1, 24), (1, 80), (8, 24), (8, 80), (64, 40)):
        found = choices(SHAPE, setup(world), gigabytes * 1e9)
        best = recommended(found)
        assert best is not None and best.memory.peak <= (1 - HEADROOM) * gigabytes * 1e9
        assert all(choice.memory.peak > (1 - HEADROOM) * gigabytes * 1e9 for choice in found[: found.index(best)])
    assert recommended(choices(SHAPE, setup(1), 8e9)) is None


def test_the_longest_row_fits_and_a_longer_one_does_not() -> None:
    for recompute in (False, True):
        longest = longest_row(SHAPE, setup(recompute=recompute), GPU)
        room = (1 - HEADROOM) * GPU
        assert longest > 0 and longest % 256 == 0
        assert rank_memory(SHAPE, setup(positions=longest, recompute=recompute)).peak <= room
        assert rank_memory(SHAPE, setup(positions=longest + 256, recompute=recompute)).peak > room
    assert longest_row(SHAPE, setup(), 5e9) == 0


def test_more_ranks_never_take_more_memory() -> None:
    for choice in choices(SHAPE, setup(), GPU):
        peaks = [
            c.memory.peak
            for w in (8, 16, 64)
            for c in choices(SHAPE, setup(w), GPU)
            if c.setup.zero == choice.setup.zero
            and c.setup.recompute == choice.setup.recompute
            and c.setup.offload == choice.setup.offload
        ]
        assert peaks == sorted(peaks, reverse=True)


def test_the_command_prints_the_hours_that_the_sums_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "voxcpm2", "--gpus", "16", "--train-positions", "1e11", "--mfu", "0.5"]) == 0
    output = capsys.readouterr().out
    hours = gpu_hours(position_flops(SHAPE, audio=1.0, context=8192) * 1e11, peak_tflops=989, mfu=0.5)
    assert f"{hours:,.0f} GPU-hours, {hours / 16 / 24:,.1f} days on 16" in output
    assert re.search(r"take engine\.zero=\d.*rows=256 \(16 a rank\)", output)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere/"], "config.json"),
        (["--dtype", "float8"], "--dtype float8: write one of bfloat16, float32"),
        (["--zero", "4"], "--zero 4"),
        (["--zero", "1", "--offload"], "only ZeRO 2 and 3"),
        (["--gpus", "0"], "--gpus 0: must be more than 0"),
        (["--mfu", "1.5"], "--mfu 1.5: a share"),
    ],
)
def test_mistakes_are_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *arguments]) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1
