"""Requests of any mode and length, one patch a step for all of them; they join and leave between steps (report 3.7).

The batch owns all state: keys and values, the last hidden states, each request's own noise. The model is only read, so
batches in several threads share it. Different from the released loop: the stop decision comes before the patch, since
it reads the hidden state that predicts that patch, so a request's last step ends at its last patch.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from model.flow.sampler import Schedule, sample, schedule
from model.generation.active_request import ActiveRequest
from model.generation.state import State, advance, device_and_dtype, read
from model.layers.attention import Step
from model.voxcpm2 import VoxCPM2


class ContinuousBatch:
    """A `Batch` of as many rows as there are requests in progress; rows are copied when requests join and leave."""

    def __init__(self, model: VoxCPM2) -> None:
        self.model = model
        self._active: list[ActiveRequest] = []
        self._state: State | None = None
        self._schedules: dict[int, Schedule] = {}
        self.device, self.dtype = device_and_dtype(model)

    @property
    def active(self) -> list[ActiveRequest]:
        """Requests in progress, in the order of the state's rows."""
        return list(self._active)

    @torch.inference_mode()
    def join(self, requests: Sequence[ActiveRequest]) -> None:
        """Reads the requests' sequences, packed without padding; they take part from the next step on."""
        if not requests:
            return
        new = read(self.model, [request.layout for request in requests])
        self._state = new if self._state is None else State.join([self._state, new])
        self._active += requests

    @torch.inference_mode()
    def step(self) -> list[ActiveRequest]:
        """One patch for every request in progress; returns them, those included that are finished and have left."""
        state, stepped = self._state, self._active
        if state is None:
            return []
        stops = self.model.stop_logits(state.lm_RC).argmax(-1).tolist()
        patches_RPD = self._sample(state)
        past = [
            request.accept(patch, stop=bool(stop))
            for request, patch, stop in zip(stepped, patches_RPD, stops, strict=True)
        ]
        kept = [index for index, request in enumerate(stepped) if request.finish is None]
        self._active = [stepped[index] for index in kept]
        if not kept:
            self._state = None
            return stepped
        if len(kept) < len(stepped):
            state = state.select(kept)
        self._state = self._advance(state, torch.stack([past[index] for index in kept]))
        return stepped

    @torch.inference_mode()
    def leave(self, requests: Sequence[ActiveRequest]) -> None:
        """Drops requests before they are finished."""
        kept = [index for index, request in enumerate(self._active) if request not in requests]
        if self._state is not None and len(kept) < len(self._active):
            self._state = self._state.select(kept) if kept else None
            self._active = [self._active[index] for index in kept]

    def _sample(self, state: State) -> Tensor:
        config = self.model.config
        shape = (config.patch_size, config.feat_dim)
        noise_RPD = torch.cat([request.next_noise(shape, self.dtype) for request in self._active]).to(self.device)
        mu_RMC = self.model.condition(state.lm_RC, state.residual_RC)
        guidance_R = torch.tensor([request.settings.guidance for request in self._active], device=self.device)
        by_steps: dict[int, list[int]] = defaultdict(list)
        for index, request in enumerate(self._active):
            by_steps[request.settings.steps].append(index)
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

    def _advance(self, state: State, patches_RPD: Tensor) -> State:
        lm_RC, residual_RC = advance(self.model, patches_RPD, Step.over(state.base), Step.over(state.residual))
        state.base.advance()
        state.residual.advance()
        return State(lm_RC, residual_RC, patches_RPD, state.base, state.residual)

    def _schedule(self, steps: int) -> Schedule:
        if steps not in self._schedules:
            self._schedules[steps] = schedule(steps, dtype=self.dtype, device=self.device)
        return self._schedules[steps]
