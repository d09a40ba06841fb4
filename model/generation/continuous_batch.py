"""Requests of any mode and length, one patch a step for all of them; they join and leave between steps (report 3.7).

The batch owns all state: keys and values, the last hidden states, each request's own noise. The model is only read, so
batches in several threads share it. What differs from the released loop: the stop decision comes before the patch, since
it reads the hidden state that predicts that patch, so a request's last step ends at its last patch.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from model.flow.sampler import Schedule, sample, schedule
from model.generation.active_request import Row
from model.generation.state import State, advance, place_of, read
from model.layers.attention import Step
from model.voxcpm2 import VoxCPM2


class ContinuousBatch:
    """`join` requests at any time, `step` until they are finished; finished rows leave by themselves."""

    def __init__(self, model: VoxCPM2) -> None:
        self.model = model
        self.rows: list[Row] = []
        self._state: State | None = None
        self._schedules: dict[int, Schedule] = {}
        self.device, self.dtype = place_of(model)

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Reads the rows' sequences, packed without padding, and lets them take part from the next step on."""
        if not rows:
            return
        new = read(self.model, [row.layout for row in rows])
        self._state = new if self._state is None else State.join([self._state, new])
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

    def _sample(self, state: State) -> Tensor:
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

    def _advance(self, state: State, patches_RPD: Tensor) -> State:
        lm_RC, residual_RC = advance(self.model, patches_RPD, Step.over(state.base), Step.over(state.residual))
        state.base.advance()
        state.residual.advance()
        return State(lm_RC, residual_RC, patches_RPD, state.base, state.residual)

    def _schedule(self, steps: int) -> Schedule:
        if steps not in self._schedules:
            self._schedules[steps] = schedule(steps, dtype=self.dtype, device=self.device)
        return self._schedules[steps]
