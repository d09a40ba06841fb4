"""Learning rates: rise in a line, then fall along half a cosine or by a factor a step."""

import pytest

from training.run.schedule import warmup_then_cosine, warmup_then_exponential


def test_warm_up_and_cosine() -> None:
    rates = [warmup_then_cosine(step, steps=110, peak=1.0, warmup_steps=9, final=0.1) for step in range(110)]
    assert rates[:9] == pytest.approx([(k + 1) / 10 for k in range(9)])
    assert rates[9] == 1.0 and rates[-1] == pytest.approx(0.1)
    assert rates[59] == pytest.approx(0.55)
    assert all(a > b for a, b in zip(rates[9:], rates[10:], strict=False))


def test_the_shortest_runs() -> None:
    assert warmup_then_cosine(0, steps=1, peak=0.5, warmup_steps=0, final=0.0) == 0.5
    assert warmup_then_cosine(1, steps=2, peak=0.5, warmup_steps=0, final=0.0) == pytest.approx(0.0)


def test_warm_up_and_decay() -> None:
    rates = [warmup_then_exponential(step, peak=1e-3, warmup_steps=9, decay=0.5) for step in (0, 9, 11)]
    assert rates == [1e-4, 1e-3 * 0.5**9, 1e-3 * 0.5**11]
