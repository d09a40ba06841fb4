"""Speech from requests: one, many in a continuous batch, or as a stream of 160 ms pieces (report 3.7, spec 4).

Different from the released code: nothing here is shared between requests or threads but weights that are only read.
Noise comes from a generator a request, so a seed means the same alone, in a batch and beside other threads, and the
global generator is left alone.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.generation.active_request import Finish, Row
from model.generation.continuous_batch import ContinuousBatch
from model.generation.request import Prepared, Request, Tokenizer, prepare
from model.generation.state import place_of
from model.generation.static_batch import StaticBatch
from model.generation.streaming import context_of, decode, decode_next, open_decoder
from model.generation.voice import Voice, load_voice
from model.layers.packed_linear import packed
from model.voxcpm2 import VoxCPM2

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.codec.audio_vae import AudioVAE, DecoderStream

BATCH_SIZE = 16
"""Requests in progress at once by default: where a CPU gains little more; a GPU takes 64 and more."""


@dataclass(frozen=True, eq=False)
class Speech:
    """What was said. `audio_T`: mono fp32 in [-1, 1], CPU; `patches_GPD`: its latents, for `Voice.extended`."""

    audio_T: Tensor
    sample_rate: int
    patches_GPD: Tensor
    seed: int
    """Gives this speech again, in one attempt."""
    finish: Finish
    attempts: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.audio_T.shape[0] / self.sample_rate


@dataclass(frozen=True, eq=False)
class Piece:
    """The next patch of request number `index` (from 0), in a stream."""

    index: int
    audio_T: Tensor
    seed: int
    finish: Finish | None
    """Set on the request's last piece."""


@dataclass(frozen=True, eq=False)
class _Job:
    index: int
    request: Request
    prepared: Prepared
    seed: int
    attempt: int = 1

    def row(self, device: torch.device) -> Row:
        generator = torch.Generator(device).manual_seed(self.seed)
        return Row(self.prepared.layout, self.request.settings, self.prepared.limit, generator)

    def again(self) -> _Job:
        return _Job(self.index, self.request, self.prepared, self.seed + 1, self.attempt + 1)


class Generator:
    """Weights ready to speak. Safe to share between threads; every call owns its state.

    On the CPU the weights are packed at once (`packed_linear`): a later change of `model` is not heard. On a GPU steps
    are replayed as CUDA graphs (`static_batch`), captured in the first calls; such batches are kept for later calls.
    """

    def __init__(
        self,
        model: VoxCPM2,
        vae: AudioVAE,
        tokenizer: Tokenizer,
        *,
        pack: bool = True,
        static: bool | None = None,
        compiled: bool = False,
    ) -> None:
        """`static`: batches with fixed buffers; None: on a GPU. `compiled`: these through torch.compile, which takes
        a minute at first."""
        self.model = packed(model) if pack else model
        self._static = place_of(model)[0].type == "cuda" if static is None else static
        self._compiled = compiled
        self._idle: list[StaticBatch] = []
        self.vae, self.tokenizer = vae, tokenizer
        self.config = model.config
        self.sample_rate = model.config.audio_vae_config.out_sample_rate
        self.device = place_of(model)[0]

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, pack: bool = True, compiled: bool = False) -> Generator:
        """The generator of a loaded checkpoint."""
        return cls(checkpoint.model, checkpoint.vae, checkpoint.tokenizer, pack=pack, compiled=compiled)

    def voice(
        self,
        *,
        reference: str | Path | None = None,
        prompt: str | Path | None = None,
        prompt_text: str | None = None,
        trim: bool = False,
    ) -> Voice:
        """The voice of these audio files, to be used in any number of requests; see `load_voice`."""
        return load_voice(
            self.vae,
            patch_size=self.config.patch_size,
            reference=reference,
            prompt=prompt,
            prompt_text=prompt_text,
            trim=trim,
        )

    def prepare(self, request: Request) -> Prepared:
        """Checks a request and tells its length.

        Raises:
            UserError: the request cannot be spoken; see `request.prepare`.
        """
        return prepare(request, self.tokenizer, self.config)

    def generate(self, request: Request, *, on_patch: Callable[[int], None] | None = None) -> Speech:
        """One request, runaways tried again. `on_patch` hears how many patches there are, after each.

        Raises:
            UserError: see `prepare`.
        """
        return next(self.generate_many([request], batch_size=1, on_patch=on_patch))[1]

    def stream(self, request: Request) -> Iterator[Tensor]:
        """The same speech as pieces of one patch, [7680] each, the moment they are there. One attempt.

        Raises:
            UserError: at the first piece; see `prepare`.
        """
        return (piece.audio_T for piece in self.stream_many([request], batch_size=1))

    def generate_many(
        self,
        requests: Iterable[Request],
        *,
        batch_size: int = BATCH_SIZE,
        on_patch: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, Speech]]:
        """(number of the request from 0, its speech), whichever is finished first.

        Args:
            requests: taken as places become free, so it may be endless or wait.
            batch_size: requests in progress at once.
            on_patch: hears of every new patch, with the number of its request's patches.

        Raises:
            UserError: a request cannot be spoken; those in progress are lost. Use `prepare` to check beforehand.
        """
        for step in self._run(requests, batch_size, retry=True):
            for job, row in step:
                if on_patch is not None:
                    on_patch(len(row.patches))
                if row.finish is not None:
                    yield job.index, self._speech(job, row)

    def stream_many(self, requests: Iterable[Request], *, batch_size: int = BATCH_SIZE) -> Iterator[Piece]:
        """Pieces of all requests in progress, one of each a step. One attempt each, since what is out is out."""
        decoders: dict[int, DecoderStream] = {}
        for step in self._run(requests, batch_size, retry=False):
            with torch.inference_mode():
                for job, _ in step:
                    if job.index not in decoders:
                        context_CPD = context_of(job.prepared.layout)
                        decoders[job.index] = open_decoder(self.vae, context_CPD, seed=job.seed)
                audio_RT = decode_next([decoders[job.index] for job, _ in step], [row.patches[-1] for _, row in step])
            for (job, row), audio_T in zip(step, audio_RT.clone(), strict=True):
                if row.finish is not None:
                    del decoders[job.index]
                yield Piece(job.index, audio_T, job.seed, row.finish)

    def _speech(self, job: _Job, row: Row) -> Speech:
        assert row.finish is not None
        with torch.inference_mode():
            patches_GPD = torch.stack(row.patches)
            audio_T = decode(self.vae, patches_GPD, context_of(job.prepared.layout), seed=job.seed)
        # Clones: what was made in inference mode could not be trained on.
        return Speech(
            audio_T.clone(), self.sample_rate, patches_GPD.clone().float().cpu(), job.seed, row.finish, job.attempt
        )

    def _run(self, requests: Iterable[Request], batch_size: int, *, retry: bool) -> Iterator[list[tuple[_Job, Row]]]:
        """Every step's rows; a runaway that is tried again is not shown at its end."""
        if batch_size < 1:
            raise ValueError("batch_size must be 1 or more")
        batch = self._take_batch(batch_size)
        try:
            yield from self._speak(batch, enumerate(requests), batch_size, retry)
        except GeneratorExit:  # the listener has hung up
            batch.leave(batch.rows)
            self._keep(batch)
            raise
        self._keep(batch)  # not after an error: who knows what its buffers hold

    def _keep(self, batch: ContinuousBatch | StaticBatch) -> None:
        if isinstance(batch, StaticBatch):
            self._idle.append(batch)

    def _take_batch(self, size: int) -> ContinuousBatch | StaticBatch:
        if not self._static:
            return ContinuousBatch(self.model)
        places = 1 << (size - 1).bit_length()
        for batch in list(self._idle):
            if batch.places == places:
                # Another thread may have been faster.
                with contextlib.suppress(ValueError):
                    self._idle.remove(batch)
                    return batch
        return StaticBatch(self.model, places, compiled=self._compiled)

    def _speak(
        self, batch: ContinuousBatch | StaticBatch, waiting: Iterator[tuple[int, Request]], batch_size: int, retry: bool
    ) -> Iterator[list[tuple[_Job, Row]]]:
        jobs: dict[Row, _Job] = {}
        again: list[_Job] = []
        while True:
            joining: dict[Row, _Job] = {}
            while len(batch.rows) + len(joining) < batch_size:
                job = again.pop(0) if again else self._next_job(waiting)
                if job is None:
                    break
                joining[job.row(self.device)] = job
            batch.join(list(joining))
            jobs |= joining
            if not batch.rows:
                return
            shown = []
            for row in batch.step():
                job = jobs[row]
                if row.finish is not None:
                    del jobs[row]
                    if (
                        retry
                        and job.prepared.ran_away(len(row.patches))
                        and job.attempt < job.request.settings.attempts
                    ):
                        again.append(job.again())
                        continue
                shown.append((job, row))
            if shown:
                yield shown

    def _next_job(self, waiting: Iterator[tuple[int, Request]]) -> _Job | None:
        for index, request in waiting:
            seed = secrets.randbits(31) if request.seed is None else request.seed
            return _Job(index, request, self.prepare(request), seed)
        return None
