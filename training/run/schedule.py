"""The learning rate as a function of the step: linear warm-up, then half a cosine (report 3.5)."""

import math

from training.curriculum.recipe import OptimizerConfig


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Rate of step `step` (0 to steps - 1). The first step is not at zero, the last is at `final` times the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    length = max(steps - 1 - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / length, 1.0)
    share = config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2
    return config.learning_rate * share
