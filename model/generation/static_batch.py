"""The continuous batch for GPUs: places instead of rows, buffers that never move, a step replayed as CUDA graphs.

At one request a patch is some two thousand kernels of a few microseconds, which the CPU launches slower than the GPU
runs them. A CUDA graph launches them at once, but wants the same addresses and shapes every time: so requests take
places in buffers of fixed size, and free places are computed along and thrown away. On the CPU the same code runs
without graphs, which is how it is tested.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from model.flow.sampler import sample, schedule
from model.generation.active_request import Row
from model.generation.state import State, advance, place_of, read
from model.layers.attention import Step
from model.layers.kv_cache import KVCache
from model.voxcpm2 import VoxCPM2

FIRST_CAPACITY = 512
"""Positions a place has at first; doubled when a request needs more, which captures the graphs anew."""


class StaticBatch:
    """`ContinuousBatch` with room for `places` requests; the same `join`, `step`, `leave` and `rows`.

    Made once and used for many requests, one thread at a time: capturing takes seconds.
    """

    capacity: int
    """Positions that a place has now."""
    _lengths: list[int]
    _advance: "_Replayed"

    def __init__(self, model: VoxCPM2, places: int, *, capacity: int = FIRST_CAPACITY, compiled: bool = False) -> None:
        """`compiled`: LocDiT and LocEnc through torch.compile, which fuses their small kernels."""
        self.model, self.places = model, places
        self.device, self.dtype = place_of(model)
        self._rows: list[Row | None] = [None] * places
        self._estimator: Any = model.feat_decoder.estimator
        self._encode: Callable[[Tensor], Tensor] = model.encode_patches
        if compiled:
            self._estimator = torch.compile(self._estimator, dynamic=False)
            self._encode = torch.compile(self._encode, dynamic=False)
        self._build(capacity)

    @property
    def rows(self) -> list[Row]:
        """Requests in progress."""
        return [row for row in self._rows if row is not None]

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Reads the rows' sequences into free places."""
        free = [place for place, row in enumerate(self._rows) if row is None][: len(rows)]
        if len(free) < len(rows):
            raise ValueError(f"{len(rows)} requests join a batch of {self.places} places, {len(free)} are free")
        if not rows:
            return
        self._reserve(max(len(row.layout) for row in rows) + 1)
        self._put(read(self.model, [row.layout for row in rows]), free)
        for place, row in zip(free, rows, strict=True):
            self._rows[place] = row
        self._place_rows()

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """One patch for every row; returns the rows, of which those with `finish` set have left the batch."""
        stepped = [(place, row) for place, row in enumerate(self._rows) if row is not None]
        if not stepped:
            return []
        shape = (self.model.config.patch_size, self.model.config.feat_dim)
        noise_RPD = torch.cat([row.next_noise(shape, self.dtype).to(self.device) for _, row in stepped])
        self._noise_SPD[[place for place, _ in stepped]] = noise_RPD
        patches_SPD = self._sampled({row.settings.steps for _, row in stepped})
        stops = self._stop_S.tolist()
        self._condition_SPD.copy_(patches_SPD)
        for place, row in stepped:
            past_PD = row.accept(patches_SPD[place], stop=bool(stops[place]))
            if row.forced_NPD is not None:
                self._condition_SPD[place] = past_PD
            if row.finish is not None:
                self._rows[place] = None
        if len(self.rows) < len(stepped):
            self._place_rows()
        if self.rows:
            self._reserve(max(self._lengths[place] for place, row in enumerate(self._rows) if row is not None) + 1)
            self._advance()
            self._lengths = [length + (row is not None) for length, row in zip(self._lengths, self._rows, strict=True)]
        return [row for _, row in stepped]

    @torch.inference_mode()
    def leave(self, rows: Sequence[Row]) -> None:
        """Lets rows go before they are finished."""
        self._rows = [None if row in rows else row for row in self._rows]
        self._place_rows()

    def _build(self, capacity: int) -> None:
        """Buffers of that capacity, all places free, no graphs yet."""
        config, places = self.model.config, self.places

        def zeros(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        size, patch = config.lm_config.hidden_size, (config.patch_size, config.feat_dim)
        self.capacity = capacity
        self._lm_SC, self._residual_SC = zeros(places, size), zeros(places, size)
        self._condition_SPD, self._noise_SPD = zeros(places, *patch), zeros(places, *patch)
        self._guidance_S = zeros(places, dtype=torch.float32)
        self._taken_S, self._positions_S = zeros(places, dtype=torch.long), zeros(places, dtype=torch.long)
        self._stop_S = zeros(places, dtype=torch.long)
        self._lengths = [0] * places
        self._base, self._residual = (
            KVCache.empty(stack, rows=places, capacity=capacity, dtype=self.dtype, device=self.device)
            for stack in (config.lm_config, config.residual_stack)
        )
        self._seen_T = torch.arange(capacity, device=self.device)
        self._samplers: dict[int, _Replayed] = {}
        self._advance = _Replayed(self._advance_once, self.device)

    def _reserve(self, length: int) -> None:
        """Makes room for `length` positions in every place."""
        if length <= self.capacity:
            return
        taken = [place for place, row in enumerate(self._rows) if row is not None]
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
        self._place_rows()

    def _put(self, state: State, places: list[int]) -> None:
        self._lm_SC[places], self._residual_SC[places] = state.lm_RC, state.residual_RC
        self._condition_SPD[places] = state.condition_RPD
        for cache, new in ((self._base, state.base), (self._residual, state.residual)):
            width = min(max(new.lengths), self.capacity)
            for row, place in enumerate(places):
                cache.key_LRKTD[:, place, :, :width] = new.key_LRKTD[:, row, :, :width]
                cache.value_LRKTD[:, place, :, :width] = new.value_LRKTD[:, row, :, :width]
        for place, length in zip(places, state.base.lengths, strict=True):
            self._lengths[place] = length

    def _place_rows(self) -> None:
        """Tells the buffers who sits where; a free place stands at position 0 and stays there."""
        taken = [row is not None for row in self._rows]
        lengths = [length if here else 0 for length, here in zip(self._lengths, taken, strict=True)]
        self._lengths = lengths
        self._taken_S.copy_(torch.tensor(taken, dtype=torch.long))
        self._positions_S.copy_(torch.tensor(lengths))
        guidance = [0.0 if row is None else row.settings.guidance for row in self._rows]
        self._guidance_S.copy_(torch.tensor(guidance))

    def _sampled(self, all_steps: set[int]) -> Tensor:
        """The next patch of every place [S, P, D], each sampled in its own number of steps."""
        found = {}
        for steps in all_steps:
            if steps not in self._samplers:
                self._samplers[steps] = _Replayed(self._sampler(steps), self.device)
            found[steps] = self._samplers[steps]().clone()  # the next replay writes to the same place
        if len(found) == 1:
            return found.popitem()[1]
        default = min(found)
        return torch.stack(
            [found[default if row is None else row.settings.steps][place] for place, row in enumerate(self._rows)]
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
        lm_SC, residual_SC = advance(self.model, self._condition_SPD, *spans, encode=self._encode)
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
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # other threads may go on
                self._out = self.function()
        self._graph.replay()  # capturing only recorded it
        assert self._out is not None
        return self._out


def _some_rows(cache: KVCache, rows: list[int], lengths: list[int]) -> KVCache:
    return KVCache(cache.key_LRKTD[:, rows], cache.value_LRKTD[:, rows], [lengths[row] for row in rows])
