"""Time of training: operations of a position, and GPU-hours at an assumed MFU."""

import math

from cluster.planner.memory import ModelShape, Stack


def position_flops(shape: ModelShape, *, audio: float, context: int) -> float:
    """Floating-point operations of a position, forward and backward, 2 a multiplication and addition.

    Args:
        audio: share of positions that are audio and targets, 0 to 1.
        context: positions of a sample; a position attends to half of them on average.
    """
    spans = (context / 2, context / 2, shape.encoder.tokens, shape.decoder.tokens)
    units = (1.0, 1.0, audio, audio)
    stacks = (shape.base, shape.residual, shape.encoder, shape.decoder)
    forward = sum(u * _stack_flops(stack, span) for stack, span, u in zip(stacks, spans, units, strict=True))
    return 3 * forward


def _stack_flops(stack: Stack, span: float) -> float:
    """Forward, for one position or patch; `span`: tokens that a token attends to."""
    heads, keys = stack.heads * stack.head_dim, stack.key_heads * stack.head_dim
    query_side = 2 * stack.hidden * (2 * heads + 3 * stack.ffn) + 4 * heads * span
    key_side = 2 * stack.hidden * 2 * keys
    return stack.layers * stack.tokens * (query_side + key_side) - (stack.tokens - stack.kept) * query_side


def gpu_hours(flops: float, *, peak_tflops: float, mfu: float) -> float:
    """Hours of one GPU for so many operations of the model.

    Args:
        mfu: model FLOPs utilisation, 0 to 1; activations that are computed again are no part of it.
    """
    return flops / (peak_tflops * 1e12 * mfu) / 3600


def whole_rows(rows: int, world: int) -> int:
    """The smallest multiple of `world` (ranks) that is at least `rows`."""
    return world * math.ceil(rows / world)
