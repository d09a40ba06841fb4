"""Time: operations of a training position, GPU-hours at an assumed MFU, and hours of annotation at a measured speed."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from cluster.planner.memory import ModelShape, Stack
from voxmill.core.errors import UserError


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


@dataclass(frozen=True)
class AnnotationSpeed:
    """Hours of audio that a core or a GPU annotates in an hour, and the source of the number."""

    hours: float
    device: str
    source: str

    def device_hours(self, audio_hours: float) -> float:
        """Core-hours or GPU-hours for so many hours of audio."""
        return audio_hours / self.hours


def measured_speed(path: Path) -> AnnotationSpeed:
    """Audio-hours a core-hour of a finished run, from its `run.json`: wall time times workers times threads.

    Raises:
        UserError: not a run.json, or of a run that resumed with a part of its units complete.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        hours, wall, workers = float(run["hours_in"]), float(run["wall_seconds"]), int(run["workers"])
        threads, done_before = int(run["config"]["run"]["threads"]), int(run["found_done"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name the run.json of a finished dataset") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the run.json of `voxmill annotate` ({error!r})") from None
    if done_before or not (hours > 0 and wall > 0):
        raise UserError(
            f"{path}: a run of {hours:g} h that found {done_before} units done, so its time is not that of all; "
            "take the run.json of a run into an empty OUT, or give --hours-per-core-hour"
        )
    return AnnotationSpeed(hours / (wall * workers * threads / 3600), "core", str(path))


def whole_rows(rows: int, world: int) -> int:
    """The smallest multiple of `world` (ranks) that is at least `rows`."""
    return world * math.ceil(rows / world)
