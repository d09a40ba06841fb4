"""Which setups fit: every ZeRO stage with and without activation checkpointing, the best one, and the longest row.

The order of preference is that of speed where GPUs are linked by NVLink: ZeRO 3 communicates half as much again as 1
and 2, computing activations again costs a third more operations, and an optimizer in CPU memory is slowest.
"""

from dataclasses import dataclass, replace

from cluster.planner.memory import Memory, ModelShape, Setup, Zero, rank_memory

HEADROOM = 0.08
"""Share of a GPU's memory that is left to CUDA, NCCL, the allocator's gaps and other tensors of a backward pass."""
STEP = 256
"""Rows' lengths are tried in multiples of it."""


@dataclass(frozen=True)
class Choice:
    """A layout of the run and its memory."""

    setup: Setup
    memory: Memory
    fits: bool


def choices(shape: ModelShape, base: Setup, gpu_bytes: float, *, zero: Zero | None = None) -> list[Choice]:
    """All setups in order of preference; `zero`: that stage alone. Offload comes last, or alone where `base` has it."""
    stages: list[Zero] = [1, 2, 3] if zero is None else [zero]
    if base.world == 1 and zero is None:
        # One rank divides by one: the stages are alike.
        stages = [0, 2]
    wanted = []
    for offload in (True,) if base.offload else (False, True):
        shares = (base.recompute,) if base.recompute else (0.0, 1.0)
        for recompute in (1.0,) if offload and not base.offload else shares:
            wanted += [
                replace(base, zero=stage, offload=offload, recompute=recompute)
                for stage in stages
                if not offload or stage >= 2
            ]
    return [choice_of(shape, setup, gpu_bytes) for setup in wanted]


def choice_of(shape: ModelShape, setup: Setup, gpu_bytes: float) -> Choice:
    """One layout and whether it fits."""
    memory = rank_memory(shape, setup)
    return Choice(setup, memory, memory.peak <= gpu_bytes * (1 - HEADROOM))


def recommended(candidates: list[Choice]) -> Choice | None:
    """The first that fits; None where none does."""
    return next((choice for choice in candidates if choice.fits), None)


def longest_row(shape: ModelShape, setup: Setup, gpu_bytes: float) -> int:
    """Positions of the longest row that fits, a multiple of 256; 0 where none does."""
    if not choice_of(shape, replace(setup, positions=STEP), gpu_bytes).fits:
        return 0
    low, high = 1, 2
    while choice_of(shape, replace(setup, positions=high * STEP), gpu_bytes).fits:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = choice_of(shape, replace(setup, positions=middle * STEP), gpu_bytes).fits
        low, high = (middle, high) if fits else (low, middle)
    return low * STEP
