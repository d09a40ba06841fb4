"""The batch for GPUs: slots instead of rows, buffers that never move, a step replayed as CUDA graphs.

At one request a patch is some two thousand kernels of a few microseconds, which the CPU launches slower than the GPU
runs them. A CUDA graph launches them at once, but wants the same addresses and shapes every time: so requests take
slots in buffers of fixed size, and free slots are computed along and thrown away. On the CPU the same code runs
without graphs, which is how it is tested.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from model.flow.sampler import sample, schedule
from model.generation.active_request import ActiveRequest
from model.generation.state import State, advance, device_and_dtype, read
from model.layers.attention import Step
from model.layers.kv_cache import KVCache
from model.layers.locdit import LocDiT
from model.voxcpm2 import VoxCPM2

FIRST_CAPACITY = 512
"""Positions of a slot at first; doubled when a request needs more, after which the graphs are captured again."""


class StaticBatch:
    """A `Batch` with room for `slots` requests.

    Made once and used for many requests, one thread at a time: capturing takes seconds.
    """

    capacity: int
    """Positions that fit into a slot now."""
    _lengths: list[int]
    _advance: "_Replayed"

    def __init__(self, model: VoxCPM2, slots: int, *, capacity: int = FIRST_CAPACITY, compiled: bool = False) -> None:
        """`compiled`: each step through torch.compile, which fuses its small kernels; slow once for each `slots`."""
        self.model, self.slots = model, slots
        self.device, self.dtype = device_and_dtype(model)
        self._requests: list[ActiveRequest | None] = [None] * slots
        """The request of each slot; None: the slot is free."""
        self._estimator: LocDiT = model.feat_decoder.estimator
        self._next_hidden = advance
        if compiled:
            self._estimator = cast(LocDiT, torch.compile(self._estimator, dynamic=False))
            self._next_hidden = torch.compile(advance, dynamic=False)
        self._build(capacity)

    @property
    def active(self) -> list[ActiveRequest]:
        """Requests in progress, in the order of their slots."""
        return [request for request in self._requests if request is not None]

    @torch.inference_mode()
    def join(self, requests: Sequence[ActiveRequest]) -> None:
        """Reads the requests' sequences into free slots; they take part from the next step on.

        Raises:
            ValueError: fewer slots are free.
        """
        free = [slot for slot, request in enumerate(self._requests) if request is None][: len(requests)]
        if len(free) < len(requests):
            raise ValueError(f"{len(requests)} requests join a batch of {self.slots} slots, {len(free)} are free")
        if not requests:
            return
        self._reserve(max(len(request.layout) for request in requests) + 1)
        self._put(read(self.model, [request.layout for request in requests]), free)
        for slot, request in zip(free, requests, strict=True):
            self._requests[slot] = request
        self._write_occupancy()

    @torch.inference_mode()
    def step(self) -> list[ActiveRequest]:
        """One patch for every request in progress; returns them, those included that are finished and have left."""
        stepped = [(slot, request) for slot, request in enumerate(self._requests) if request is not None]
        if not stepped:
            return []
        shape = (self.model.config.patch_size, self.model.config.feat_dim)
        noise_RPD = torch.cat([request.next_noise(shape, self.dtype).to(self.device) for _, request in stepped])
        self._noise_SPD[[slot for slot, _ in stepped]] = noise_RPD
        patches_SPD = self._sampled({request.settings.steps for _, request in stepped})
        stops = self._stop_S.tolist()
        self._condition_SPD.copy_(patches_SPD)
        for slot, request in stepped:
            past_PD = request.accept(patches_SPD[slot], stop=bool(stops[slot]))
            if request.forced_NPD is not None:
                self._condition_SPD[slot] = past_PD
            if request.finish is not None:
                self._requests[slot] = None
        if len(self.active) < len(stepped):
            self._write_occupancy()
        if self.active:
            taken = [
                length for length, request in zip(self._lengths, self._requests, strict=True) if request is not None
            ]
            self._reserve(max(taken) + 1)
            self._advance()
            self._lengths = [
                length + (request is not None) for length, request in zip(self._lengths, self._requests, strict=True)
            ]
        return [request for _, request in stepped]

    @torch.inference_mode()
    def leave(self, requests: Sequence[ActiveRequest]) -> None:
        """Drops requests before they are finished."""
        self._requests = [None if request in requests else request for request in self._requests]
        self._write_occupancy()

    def _build(self, capacity: int) -> None:
        """Buffers of that capacity, all slots free, no graphs yet."""
        config, slots = self.model.config, self.slots

        def zeros(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        size, patch = config.lm_config.hidden_size, (config.patch_size, config.feat_dim)
        self.capacity = capacity
        self._lm_SC, self._residual_SC = zeros(slots, size), zeros(slots, size)
        self._condition_SPD, self._noise_SPD = zeros(slots, *patch), zeros(slots, *patch)
        self._guidance_S = zeros(slots, dtype=torch.float32)
        self._taken_S, self._positions_S = zeros(slots, dtype=torch.long), zeros(slots, dtype=torch.long)
        self._stop_S = zeros(slots, dtype=torch.long)
        self._lengths = [0] * slots
        self._base, self._residual = (
            KVCache.empty(stack, rows=slots, capacity=capacity, dtype=self.dtype, device=self.device)
            for stack in (config.lm_config, config.residual_stack)
        )
        self._seen_T = torch.arange(capacity, device=self.device)
        self._samplers: dict[int, _Replayed] = {}
        self._advance = _Replayed(self._advance_once, self.device)

    def _reserve(self, length: int) -> None:
        """Makes room for `length` positions in every slot."""
        if length <= self.capacity:
            return
        taken = [slot for slot, request in enumerate(self._requests) if request is not None]
        state = State(
            self._lm_SC[taken],
            self._residual_SC[taken],
            self._condition_SPD[taken],
            *(_some_rows(cache, taken, self._lengths) for cache in (self._base, self._residual)),
        )
        noise_SPD = self._noise_SPD
        capacity = self.capacity
        while capacity < length:
            capacity *= 2
        self._build(capacity)
        self._noise_SPD.copy_(noise_SPD)
        if taken:
            self._put(state, taken)
        self._write_occupancy()

    def _put(self, state: State, slots: list[int]) -> None:
        self._lm_SC[slots], self._residual_SC[slots] = state.lm_RC, state.residual_RC
        self._condition_SPD[slots] = state.condition_RPD
        for cache, new in ((self._base, state.base), (self._residual, state.residual)):
            width, at = min(max(new.lengths), self.capacity), torch.tensor(slots, device=self.device)
            for layers, new_layers in ((cache.keys_RKTD, new.keys_RKTD), (cache.values_RKTD, new.values_RKTD)):
                for layer_SKTD, new_RKTD in zip(layers, new_layers, strict=True):
                    layer_SKTD[at, :, :width] = new_RKTD[:, :, :width]
        for slot, length in zip(slots, state.base.lengths, strict=True):
            self._lengths[slot] = length

    def _write_occupancy(self) -> None:
        """Writes into the buffers which slots are taken; a free slot stands at position 0 and stays there."""
        taken = [request is not None for request in self._requests]
        lengths = [length if here else 0 for length, here in zip(self._lengths, taken, strict=True)]
        self._lengths = lengths
        self._taken_S.copy_(torch.tensor(taken, dtype=torch.long))
        self._positions_S.copy_(torch.tensor(lengths))
        guidance = [0.0 if request is None else request.settings.guidance for request in self._requests]
        self._guidance_S.copy_(torch.tensor(guidance))

    def _sampled(self, all_steps: set[int]) -> Tensor:
        """The next patch of every slot [S, P, D], each sampled in its own number of steps."""
        by_steps: dict[int, Tensor] = {}
        for steps in all_steps:
            if steps not in self._samplers:
                self._samplers[steps] = _Replayed(self._sampler(steps), self.device)
            by_steps[steps] = self._samplers[steps]().clone()  # the next replay writes to the same memory
        if len(by_steps) == 1:
            return by_steps.popitem()[1]
        default = min(by_steps)
        return torch.stack(
            [
                by_steps[default if request is None else request.settings.steps][slot]
                for slot, request in enumerate(self._requests)
            ]
        )

    def _sampler(self, steps: int) -> Callable[[], Tensor]:
        plan = schedule(steps, dtype=self.dtype, device=self.device)

        def sample_once() -> Tensor:
            self._stop_S.copy_(self.model.stop_logits(self._lm_SC).argmax(-1))
            return sample(
                self._estimator,
                self.model.condition(self._lm_SC, self._residual_SC),
                self._condition_SPD,
                self._noise_SPD,
                plan,
                guidance=self._guidance_S,
                mean_mode=self.model.config.dit_config.dit_mean_mode,
            )

        return sample_once

    def _advance_once(self) -> Tensor:
        visible_ST = self._seen_T <= self._positions_S[:, None]
        spans = (Step(cache, self._positions_S, visible_ST[:, None, None]) for cache in (self._base, self._residual))
        lm_SC, residual_SC = self._next_hidden(self.model, self._condition_SPD, *spans)
        self._lm_SC.copy_(lm_SC)
        self._residual_SC.copy_(residual_SC)
        self._positions_S.add_(self._taken_S)
        return self._positions_S


class _Replayed:
    """A function of fixed buffers; on a GPU its second and later calls replay a CUDA graph of it.

    The first call runs as it is, which also lets libraries and torch.compile set themselves up.
    """

    def __init__(self, function: Callable[[], Tensor], device: torch.device) -> None:
        self.function, self.device = function, device
        self._called = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._out: Tensor | None = None

    def __call__(self) -> Tensor:
        if self.device.type != "cuda":
            return self.function()
        if not self._called:
            self._called = True
            # On a side stream, as capturing wants its warm-up.
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                out = self.function()
            torch.cuda.current_stream(self.device).wait_stream(stream)
            return out
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # other threads may launch kernels
                self._out = self.function()
        self._graph.replay()  # capturing only recorded it
        assert self._out is not None
        return self._out


def _some_rows(cache: KVCache, rows: list[int], lengths: list[int]) -> KVCache:
    keys, values = ([layer[rows] for layer in layers] for layers in (cache.keys_RKTD, cache.values_RKTD))
    return KVCache(tuple(keys), tuple(values), [lengths[row] for row in rows])
