"""Whether a run still learns: one that has died must not go on for days, be exported and be called a success.

What a learning rate far too high leaves is not always a loss that is not finite: weights may end where nothing moves
any more. That shows in a loss that stays far above what it was, in a stop predictor that knows nothing (ln 2, as for a
coin, where the share of last patches alone gives about 0.1), or in gradients that are 0.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass

from training.curriculum.recipe import Recipe

COIN = 0.95 * math.log(2)
"""A stop loss above it knows no more than a coin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VitalSigns:
    """Of one step, the same on all ranks."""

    loss: float
    stop: float
    norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VitalsState:
    """What a resumed run goes on from."""

    lowest: float | None = None
    """Lowest median loss of `health.dead_after` steps in a row."""
    recent: tuple[VitalSigns, ...] = ()


class Vitals:
    """The signs of the last `health.dead_after` steps."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._recent: deque[VitalSigns] = deque(maxlen=recipe.health.dead_after or 1)
        self._lowest = math.inf

    def state(self) -> VitalsState:
        """For a checkpoint."""
        lowest = self._lowest if math.isfinite(self._lowest) else None
        return VitalsState(lowest=lowest, recent=tuple(self._recent))

    def restore(self, state: VitalsState) -> None:
        """Goes on from a checkpoint."""
        self._lowest = math.inf if state.lowest is None else state.lowest
        self._recent.clear()
        self._recent.extend(state.recent)

    def forget(self) -> None:
        """After earlier weights were restored, whose signs these are not."""
        self._recent.clear()

    def cause_of_death(self, signs: VitalSigns) -> str:
        """Takes a step's signs; why the run is dead after it, or ""."""
        health, loss = self._recipe.health, self._recipe.loss
        if health.dead_after is None or not (math.isfinite(signs.loss) and math.isfinite(signs.norm)):
            return ""  # `Stepper` and the rows in quarantine answer to those
        self._recent.append(signs)
        if len(self._recent) < health.dead_after:
            return ""
        count = len(self._recent)
        # The median, which spikes do not move.
        middle = statistics.median(one.loss for one in self._recent)
        if middle > health.dead_loss * self._lowest:
            return f"the loss of the last {count} steps is {middle:.3g}, and was {self._lowest:.3g}"
        self._lowest = min(self._lowest, middle)
        if all(one.norm == 0 for one in self._recent):
            return f"the gradient of the last {count} steps is 0"
        if loss.stop and all(one.stop > COIN for one in self._recent):
            return f"the stop loss of the last {count} steps is that of a coin ({signs.stop:.3f})"
        return ""
