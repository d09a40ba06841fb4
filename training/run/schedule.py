"""The learning rate as a function of the step, for both trainers. Step 0 is not at a rate of zero."""

import math


def warmup_then_cosine(step: int, *, steps: int, peak: float, warmup_steps: int, final: float) -> float:
    """Linear warm-up, then half a cosine (report 3.5).

    Args:
        step: from 0 to `steps` - 1, which has a rate of `final` times `peak`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    length = max(steps - 1 - warmup_steps, 1)
    progress = min((step - warmup_steps) / length, 1.0)
    share = final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
    return peak * share


def warmup_then_exponential(step: int, *, peak: float, warmup_steps: int, decay: float) -> float:
    """Linear warm-up times `decay` ** `step`."""
    return peak * min(1.0, (step + 1) / (warmup_steps + 1)) * decay**step
