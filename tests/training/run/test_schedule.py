"""The learning rate: rises in a line, falls along half a cosine, ends where the recipe says."""

import pytest

from training.curriculum.recipe import OptimizerConfig
from training.run.schedule import learning_rate


def test_warm_up_and_cosine() -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=9, final=0.1)
    rates = [learning_rate(step, 110, config) for step in range(110)]
    assert rates[:9] == pytest.approx([(k + 1) / 10 for k in range(9)])
    assert rates[9] == 1.0 and rates[-1] == pytest.approx(0.1)
    assert rates[59] == pytest.approx(0.55)
    assert all(a > b for a, b in zip(rates[9:], rates[10:], strict=False))


def test_the_shortest_runs() -> None:
    config = OptimizerConfig(learning_rate=0.5)
    assert learning_rate(0, 1, config) == 0.5
    assert learning_rate(1, 2, config) == pytest.approx(0.0)
