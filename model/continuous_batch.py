"""Requests of any mode and length, one patch a step for all of them; they join and leave between steps (report 3.7).

The batch owns all state: keys and values, the last hidden states, each request's own noise. The model is only read, so
batches in several threads share it. What differs from the released loop: the stop decision comes before the patch, since
it reads the hidden state that predicts that patch, so a request's last step ends at its last patch.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from model.attention import Documents, Packed, Step
from model.kv_cache import GROWTH, KVCache
from model.layouts import Layout
from model.request import Settings
from model.sampler import Schedule, sample, schedule, start_noise
from model.voxcpm2 import VoxCPM2

Finish = Literal["stop", "length"]
"""The stop predictor ended the speech, or its limit did."""


@dataclass(eq=False)
class Row:
    """A request in a batch and what it has said so far.

    `noise_NPD` and `forced_NPD` are for parity with another program: its start noise a patch instead of `generator`'s,
    and its patches as the past instead of one's own (teacher forcing; `patches` still has one's own).
    """

    layout: Layout
    settings: Settings
    limit: int
    generator: torch.Generator | None
    noise_NPD: Tensor | None = None
    forced_NPD: Tensor | None = None
    patches: list[Tensor] = field(default_factory=list)
    """[patch_size, feat_dim] each."""
    stops: list[bool] = field(default_factory=list)
    """What the stop predictor said at each patch."""
    finish: Finish | None = None

    def next_noise(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The start of the next patch, [1, patch_size, feat_dim]."""
        number = len(self.patches)
        if self.noise_NPD is not None:
            return self.noise_NPD[number : number + 1].to(dtype)
        if self.generator is None:
            raise ValueError("a row needs a generator or its noise")
        return start_noise(*shape, generator=self.generator, dtype=dtype)

    def accept(self, patch_PD: Tensor, *, stop: bool) -> Tensor:
        """Takes the next patch, decides whether it is the last, and returns what the next one should see as its past."""
        number = len(self.patches)
        self.patches.append(patch_PD)
        self.stops.append(stop)
        if stop and number > self.settings.min_len:
            self.finish = "stop"
        elif number + 1 >= self.limit:
            self.finish = "length"
        return patch_PD if self.forced_NPD is None else self.forced_NPD[number].to(patch_PD)


@dataclass
class _State:
    """What one step hands to the next, a row a request."""

    lm_RC: Tensor
    residual_RC: Tensor
    condition_RPD: Tensor
    base: KVCache
    residual: KVCache

    def select(self, rows: list[int]) -> "_State":
        index = torch.tensor(rows, device=self.lm_RC.device)
        return _State(
            self.lm_RC[index],
            self.residual_RC[index],
            self.condition_RPD[index],
            self.base.select(rows),
            self.residual.select(rows),
        )

    @staticmethod
    def join(states: Sequence["_State"]) -> "_State":
        if len(states) == 1:
            return states[0]
        return _State(
            torch.cat([state.lm_RC for state in states]),
            torch.cat([state.residual_RC for state in states]),
            torch.cat([state.condition_RPD for state in states]),
            KVCache.join([state.base for state in states]),
            KVCache.join([state.residual for state in states]),
        )


class ContinuousBatch:
    """`join` requests at any time, `step` until they are finished; finished rows leave by themselves."""

    def __init__(self, model: VoxCPM2) -> None:
        self.model = model
        self.rows: list[Row] = []
        self._state: _State | None = None
        self._schedules: dict[int, Schedule] = {}
        weight = model.fsq_layer.in_proj.bias
        self.device, self.dtype = weight.device, weight.dtype

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Reads the rows' sequences, packed without padding, and lets them take part from the next step on."""
        if not rows:
            return
        config, lengths = self.model.config, tuple(len(row.layout) for row in rows)
        documents = Documents(lengths, self.device)
        caches = [
            KVCache.empty(stack, rows=len(rows), capacity=max(lengths) + GROWTH, dtype=self.dtype, device=self.device)
            for stack in (config.lm_config, config.residual_stack)
        ]
        hidden_NC, residual_NC = self.model.backbone(
            torch.cat([row.layout.tokens_T for row in rows]).to(self.device),
            torch.cat([row.layout.audio_APD for row in rows]).to(self.device, self.dtype),
            torch.cat([row.layout.is_audio_T for row in rows]).nonzero()[:, 0].to(self.device),
            *(Packed(documents, cache) for cache in caches),
        )
        for cache in caches:
            cache.lengths = list(lengths)
        ends = torch.tensor(documents.ends, device=self.device)
        condition_RPD = torch.stack([_last_patch(row.layout) for row in rows]).to(self.device, self.dtype)
        new = _State(hidden_NC[ends], residual_NC[ends], condition_RPD, *caches)
        self._state = new if self._state is None else _State.join([self._state, new])
        self.rows += rows

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """One patch for every row; returns the rows, of which those with `finish` set have left the batch."""
        state, stepped = self._state, self.rows
        if state is None:
            return []
        stops = self.model.stop_logits(state.lm_RC).argmax(-1).tolist()
        patches_RPD = self._sample(state)
        past = [
            row.accept(patch, stop=bool(stop)) for row, patch, stop in zip(stepped, patches_RPD, stops, strict=True)
        ]
        going = [index for index, row in enumerate(stepped) if row.finish is None]
        self.rows = [stepped[index] for index in going]
        if not going:
            self._state = None
            return stepped
        if len(going) < len(stepped):
            state = state.select(going)
        self._state = self._advance(state, torch.stack([past[index] for index in going]))
        return stepped

    @torch.inference_mode()
    def leave(self, rows: Sequence[Row]) -> None:
        """Lets rows go before they are finished (a listener who has hung up)."""
        going = [index for index, row in enumerate(self.rows) if row not in rows]
        if self._state is not None and len(going) < len(self.rows):
            self._state = self._state.select(going) if going else None
            self.rows = [self.rows[index] for index in going]

    def _sample(self, state: _State) -> Tensor:
        config = self.model.config
        shape = (config.patch_size, config.feat_dim)
        noise_RPD = torch.cat([row.next_noise(shape, self.dtype) for row in self.rows]).to(self.device)
        mu_RMC = self.model.condition(state.lm_RC, state.residual_RC)
        guidance_R = torch.tensor([row.settings.guidance for row in self.rows], device=self.device)
        by_steps: dict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(self.rows):
            by_steps[row.settings.steps].append(index)
        patches_RPD = torch.empty_like(noise_RPD)
        for steps, members in by_steps.items():
            rows = torch.tensor(members, device=self.device)
            patches_RPD[rows] = sample(
                self.model.feat_decoder.estimator,
                mu_RMC[rows],
                state.condition_RPD[rows],
                noise_RPD[rows],
                self._schedule(steps),
                guidance=guidance_R[rows],
                mean_mode=config.dit_config.dit_mean_mode,
            )
        return patches_RPD

    def _advance(self, state: _State, patches_RPD: Tensor) -> _State:
        model = self.model
        audio_RC = model.encode_patches(patches_RPD).to(self.dtype)
        lm_RC = model.fsq_layer(model.base_lm(audio_RC, Step.over(state.base)))
        state.base.advance()
        fused_RC = model.fusion_concat_proj(torch.cat([lm_RC, audio_RC], dim=-1))
        residual_RC = model.residual_lm(fused_RC, Step.over(state.residual))
        state.residual.advance()
        return _State(lm_RC, residual_RC, patches_RPD, state.base, state.residual)

    def _schedule(self, steps: int) -> Schedule:
        if steps not in self._schedules:
            self._schedules[steps] = schedule(steps, dtype=self.dtype, device=self.device)
        return self._schedules[steps]


def _last_patch(layout: Layout) -> Tensor:
    """The patch before the first to be generated: the prompt's last, or zeros after AUDIO_START."""
    if layout.num_target:
        return layout.audio_APD[-1]
    return torch.zeros(layout.audio_APD.shape[1:])
