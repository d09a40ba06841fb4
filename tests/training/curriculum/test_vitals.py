"""A run that learns nothing any more is told from one that does."""

import math
from collections.abc import Iterable
from pathlib import Path

import pytest

from samples.fabricate import CHECKPOINT
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.vitals import Vitals, VitalSigns


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(
        "tiny_stage1", [f"init={CHECKPOINT}", f"datasets.main.path={tmp_path}", "health.dead_after=10", "steps=1000"]
    )


def death(recipe: Recipe, steps: Iterable[tuple[float, float, float]]) -> tuple[int, str]:
    """(step, cause) of the death of a run with these losses, stop losses and norms; (-1, "") where it lives."""
    vitals = Vitals(recipe)
    for step, (loss, stop, norm) in enumerate(steps):
        cause = vitals.cause_of_death(VitalSigns(loss=loss, stop=stop, norm=norm))
        if cause:
            return step, cause
    return -1, ""


def test_a_run_that_learns_lives_through_noise_and_spikes(recipe: Recipe) -> None:
    falling = [(2.0 * math.exp(-step / 30) + 0.3 + 0.2 * (step % 2), 0.6 * math.exp(-step), 1.0) for step in range(200)]
    falling[100:104] = [(50.0, 3.0, 90.0)] * 2 + [(math.nan, 0.1, 1.0), (0.4, 0.1, math.inf)]
    assert death(recipe, falling) == (-1, "")


def test_a_loss_that_stays_far_above_its_best_is_death(recipe: Recipe) -> None:
    step, cause = death(recipe, [(0.5, 0.1, 1.0)] * 30 + [(6.0, 0.3, 1.0)] * 30)
    assert (step, cause) == (34, "the loss of the last 10 steps is 3.25, and was 0.5")


def test_a_stop_predictor_that_knows_nothing_is_death_but_not_at_the_beginning(recipe: Recipe) -> None:
    step, cause = death(recipe, [(2.0, math.log(2), 0.2)] * 30)
    assert step == 9 and "that of a coin (0.693)" in cause
    assert death(recipe, [(2.0, math.log(2), 0.2)] * 9 + [(1.5, 0.2, 0.2)] * 30) == (-1, "")
    without = recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"stop": 0.0})})
    assert death(without, [(2.0, math.log(2), 0.2)] * 30) == (-1, "")


def test_gradients_that_are_gone_are_death(recipe: Recipe) -> None:
    assert death(recipe, [(1.0, 0.1, 1.0)] * 20 + [(1.0, 0.1, 0.0)] * 20)[1] == "the gradient of the last 10 steps is 0"


def test_a_resumed_run_goes_on_with_the_same_signs(recipe: Recipe) -> None:
    one = Vitals(recipe)
    for _ in range(25):
        one.cause_of_death(VitalSigns(loss=0.5, stop=0.1, norm=1.0))
    other = Vitals(recipe)
    other.restore(one.state())
    signs = VitalSigns(loss=30.0, stop=0.1, norm=1.0)
    causes = [(one.cause_of_death(signs), other.cause_of_death(signs)) for _ in range(6)]
    assert causes[0] == ("", "") and all(mine == its for mine, its in causes)
    assert causes[5][1] == "the loss of the last 10 steps is 30, and was 0.5"


def test_it_can_be_switched_off(recipe: Recipe) -> None:
    off = recipe.model_copy(update={"health": recipe.health.model_copy(update={"dead_after": None})})
    assert death(off, [(2.0, math.log(2), 0.0)] * 500) == (-1, "")
