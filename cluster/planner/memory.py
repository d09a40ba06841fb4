"""Memory of one rank in training: weights, gradients and optimizer by ZeRO stage, activations, communication.

States follow ZeRO (arXiv 1910.02054) as DeepSpeed 0.19 keeps them; activations are what autograd saves in a row of this
model, counted layer by layer (`Stack`). Tests hold both against tensors that were measured on a CPU. Sizes are bytes.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from cluster.deepspeed.files import Communication, read_buckets

Dtype = Literal["bfloat16", "float32"]
Zero = Literal[0, 1, 2, 3]
SIZES: dict[Dtype, int] = {"bfloat16": 2, "float32": 4}
OUTSIDE = 18
"""Vectors of the language model's width that are saved for a position outside the stacks; measured, small preset."""


@dataclass(frozen=True)
class Stack:
    """One transformer stack.

    `tokens`: of each position, audio patch or target patch; `kept`: those of them that are queries in the last layer.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    key_heads: int
    head_dim: int
    tokens: int = 1
    kept: int = 1

    def norm_bytes(self, dtype: Dtype) -> float:
        """A norm's saved bytes for a token: its input in fp32, and in bf16 the rounded one before its weight, too."""
        return self.hidden * (4 + (SIZES[dtype] if dtype == "bfloat16" else 0))

    def layer_bytes(self, dtype: Dtype, tokens: float, kept: float) -> float:
        """Bytes that one layer saves for its backward pass, of which `tokens` are keys and `kept` are queries."""
        size, heads, keys = SIZES[dtype], self.heads * self.head_dim, self.key_heads * self.head_dim
        norm = self.norm_bytes(dtype)
        into, out = tokens * (norm + size * self.hidden), kept * (norm + size * self.hidden)
        attention = size * (2 * kept * heads + 2 * tokens * keys) + 4 * kept * self.heads
        return into + attention + out + kept * 4 * size * self.ffn

    def activation_bytes(self, dtype: Dtype, units: float, *, recompute: float) -> float:
        """Bytes saved for `units` positions or patches: of the first layers, the share `recompute`, their inputs."""
        tokens, kept = units * self.tokens, units * self.kept
        again = self.recomputed(recompute)
        inputs = again * tokens * self.hidden * SIZES[dtype]
        if again == self.layers:
            return inputs
        whole = (self.layers - again - 1) * self.layer_bytes(dtype, tokens, tokens)
        return inputs + whole + self.layer_bytes(dtype, tokens, kept)

    def again_bytes(self, dtype: Dtype, units: float, *, recompute: float) -> float:
        """Bytes that a layer which is computed again adds to those: by then the stack's kept layers are freed."""
        again, tokens = self.recomputed(recompute), units * self.tokens
        if not again:
            return 0.0
        layer = self.layer_bytes(dtype, tokens, tokens)
        freed = self.activation_bytes(dtype, units, recompute=recompute) - again * tokens * self.hidden * SIZES[dtype]
        return max(0.0, layer - freed)

    def recomputed(self, share: float) -> int:
        """Number of layers that are computed again at this share of them, 0..1."""
        return math.ceil(share * self.layers - 1e-9)


@dataclass(frozen=True)
class ModelShape:
    """A model's sizes. `base` and `residual` run on every position, `encoder` on audio positions, `decoder` on target
    patches."""

    parameters: int
    base: Stack
    residual: Stack
    encoder: Stack
    decoder: Stack

    def stacks(self, positions: float, audio: float) -> list[tuple[Stack, float]]:
        """Each stack and how many positions or patches it runs on, of which the share `audio` are audio and targets."""
        counts = (positions, positions, positions * audio, positions * audio)
        return list(zip((self.base, self.residual, self.encoder, self.decoder), counts, strict=True))


@dataclass(frozen=True)
class Setup:
    """The layout of a run. `positions`: of a row; `audio`: share of them that are patches (targets), 0 to 1.

    `recompute`: share of each stack's layers whose activations are computed again, 0 to 1. `trained`: number of trained
    parameters where they are adapters, beside the model's; None: the model's. `averaged`: there is an fp32 average of
    the weights.
    """

    zero: Zero
    dtype: Dtype
    world: int
    positions: int
    audio: float = 1.0
    offload: bool = False
    recompute: float = 0.0
    trained: int | None = None
    averaged: bool = False
    communication: Communication = Communication()


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. `step`: copies while the optimizer runs, when no activation lives; `host`: in CPU memory."""

    weights: float
    gradients: float
    optimizer: float
    activations: float = 0.0
    communication: float = 0.0
    step: float = 0.0
    host: float = 0.0

    @property
    def states(self) -> float:
        """The part that does not depend on the row."""
        return self.weights + self.gradients + self.optimizer

    @property
    def peak(self) -> float:
        """The largest sum at any time of a step."""
        return self.states + max(self.activations + self.communication, self.step)


def state_memory(
    parameters: int,
    *,
    zero: Zero,
    dtype: Dtype,
    world: int,
    offload: bool = False,
    trained: int | None = None,
    ema: bool = False,
) -> Memory:
    """Weights, gradients and optimizer of a rank.

    ZeRO 1 divides the optimizer by the ranks, 2 the gradients too, 3 everything; divided gradients accumulate in fp32.
    The optimizer is AdamW's two moments and an fp32 copy of the weights; only ZeRO 0 in fp32 needs no copy. Offloaded,
    optimizer and gradients are in CPU memory.

    Args:
        trained: number of trained parameters (adapters); None: all.
        ema: whether there is an fp32 average of the weights.
    """
    size, trained = SIZES[dtype], parameters if trained is None else trained
    optimizer = 8.0 if zero == 0 and dtype == "float32" else 12.0
    optimizer += 4.0 if ema else 0.0
    held = Memory(
        weights=parameters * size / (world if zero == 3 else 1),
        gradients=trained * (4 / world if zero >= 2 else size),
        optimizer=trained * optimizer / (world if zero >= 1 else 1),
    )
    if offload:
        return replace(held, gradients=0.0, optimizer=0.0, host=held.optimizer + trained * 4 / world)
    return held


def rank_memory(shape: ModelShape, setup: Setup) -> Memory:
    """All of a rank, for the largest row.

    Raises:
        UserError: the stage has no configuration with offload.
    """
    trained = shape.parameters if setup.trained is None else setup.trained
    held = state_memory(
        shape.parameters + (0 if setup.trained is None else trained),
        zero=setup.zero,
        dtype=setup.dtype,
        world=setup.world,
        offload=setup.offload,
        trained=trained,
        ema=setup.averaged,
    )
    size, mine = SIZES[setup.dtype], trained / (setup.world if setup.zero else 1)
    # The gradient in fp32, and what AdamW computes by: a second tensor of that length.
    copies = 0.0 if setup.offload else mine * (8 if setup.zero or setup.dtype == "bfloat16" else 4)
    hpz = setup.communication.hpz
    # hpZ keeps a second copy of the weights, divided by the ranks of one machine.
    second = shape.parameters * size / hpz if hpz and setup.zero == 3 else 0.0
    return replace(
        held,
        weights=held.weights + second,
        activations=activation_bytes(shape, setup),
        communication=_communication_numel(shape.parameters, setup) * size,
        step=copies,
    )


def activation_bytes(shape: ModelShape, setup: Setup) -> float:
    """Bytes that a row saves between forward and backward."""
    stacks, recompute = shape.stacks(setup.positions, setup.audio), setup.recompute
    saved = sum(stack.activation_bytes(setup.dtype, units, recompute=recompute) for stack, units in stacks)
    # Last norms of the stacks, and what is between and around them.
    saved += sum(units * stack.kept * stack.norm_bytes(setup.dtype) for stack, units in stacks)
    saved += OUTSIDE * setup.positions * shape.base.hidden * SIZES[setup.dtype]
    # Only one stack at a time computes a layer again.
    return saved + max(stack.again_bytes(setup.dtype, units, recompute=recompute) for stack, units in stacks)


def _communication_numel(parameters: int, setup: Setup) -> float:
    buckets = read_buckets(setup.zero, offload=setup.offload, world=setup.world, communication=setup.communication)
    if setup.zero == 0:
        # Gradients are reduced as flat copies of at most one bucket; a single rank reduces nothing.
        return float(min(parameters, buckets.reduce_bucket_size)) if setup.world > 1 else 0.0
    numel = buckets.reduce_bucket_size * (2 if buckets.overlaps and setup.zero < 3 else 1)
    if setup.zero == 3:
        numel += min(parameters, buckets.stage3_max_live_parameters) + buckets.stage3_prefetch_bucket_size
    return float(numel)
