"""Speech from requests: one, many in a continuous batch, or as a stream of 160 ms pieces (report 3.7, spec 4).

Different from the released code: nothing here is shared between requests or threads but weights that are only read.
Noise comes from a generator a request, so a seed means the same alone, in a batch and beside other threads, and the
global generator is left alone.
"""

from __future__ import annotations

import collections.abc
import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.generation.active_request import ActiveRequest, Finish
from model.generation.batch import Batch
from model.generation.continuous_batch import ContinuousBatch
from model.generation.request import Prepared, Request, Tokenizer, prepare
from model.generation.state import device_and_dtype
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
    """Generated speech."""

    audio_T: Tensor
    """Mono fp32 in [-1, 1] on the CPU."""
    sample_rate: int
    """Hertz."""
    patches_GPD: Tensor
    """Its latents, [G, patch_size, feat_dim] fp32 on the CPU, for `Voice.extended`."""
    seed: int
    """Gives this speech again, in one attempt."""
    finish: Finish
    attempts: int
    """Attempts taken, 1 or more."""

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.audio_T.shape[0] / self.sample_rate


@dataclass(frozen=True, eq=False)
class Piece:
    """The next patch of request number `index` (from 0), in a stream."""

    index: int
    audio_T: Tensor
    """Mono fp32 in [-1, 1] on the CPU, 160 ms (7680 samples) released."""
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

    def start(self, device: torch.device) -> ActiveRequest:
        generator = torch.Generator(device).manual_seed(self.seed)
        return ActiveRequest(self.prepared.layout, self.request.settings, self.prepared.limit, generator)

    def retry(self) -> _Job:
        return _Job(self.index, self.request, self.prepared, self.seed + 1, self.attempt + 1)


class Generator:
    """Weights ready for generation. Safe to share between threads; every call owns its state.

    On the CPU the weights are packed at once (`packed_linear`): a later change of `model` has no effect. On a GPU steps
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
        """Prepares the weights; `model` and `vae` must be in eval mode.

        Args:
            pack: lay the weights out for the CPU's kernels; no effect on a GPU.
            static: batches with fixed buffers; None: on a GPU.
            compiled: such batches through torch.compile, which takes a minute at first.
        """
        self.model = packed(model) if pack else model
        self._static = device_and_dtype(model)[0].type == "cuda" if static is None else static
        self._compiled = compiled
        self._idle: list[StaticBatch] = []
        self.vae, self.tokenizer = vae, tokenizer
        self.config = model.config
        self.sample_rate = model.config.audio_vae_config.out_sample_rate
        self.device = device_and_dtype(model)[0]

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
        """The request in the model's terms, with its length and limit.

        Raises:
            UserError: the request cannot be generated; see `request.prepare`.
        """
        return prepare(request, self.tokenizer, self.config)

    def generate(self, request: Request, *, on_patch: Callable[[int], None] | None = None) -> Speech:
        """One request, runaways tried again.

        Args:
            on_patch: called after each patch with the number of patches so far.

        Raises:
            UserError: see `prepare`.
        """
        return next(self.generate_many([request], batch_size=1, on_patch=on_patch))[1]

    def stream(self, request: Request) -> Iterator[Tensor]:
        """The same speech in pieces of one patch, [7680] each (released), as soon as they are decoded. One attempt.

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
            requests: taken as slots become free, so it may be endless or block.
            batch_size: requests in progress at once, 1 or more.
            on_patch: called at every new patch with the number of its request's patches so far.

        Raises:
            UserError: a request cannot be generated; those in progress are lost. Use `prepare` to check beforehand.
        """
        for step in self._run(requests, batch_size, retry=True):
            for job, request in step:
                if on_patch is not None:
                    on_patch(len(request.patches))
                if request.finish is not None:
                    yield job.index, self._speech(job, request)

    def stream_many(
        self, requests: Iterable[Request], *, batch_size: int = BATCH_SIZE
    ) -> collections.abc.Generator[Piece, None, None]:
        """Pieces of all requests in progress, one of each a step. One attempt each: a piece cannot be taken back.

        Closing the returned generator drops the requests in progress. Arguments and errors as in `generate_many`.
        """
        decoders: dict[int, DecoderStream] = {}
        for step in self._run(requests, batch_size, retry=False):
            with torch.inference_mode():
                for job, _ in step:
                    if job.index not in decoders:
                        context_CPD = context_of(job.prepared.layout)
                        decoders[job.index] = open_decoder(self.vae, context_CPD, seed=job.seed)
                patches = [request.patches[-1] for _, request in step]
                audio_RT = decode_next([decoders[job.index] for job, _ in step], patches)
            for (job, request), audio_T in zip(step, audio_RT.clone(), strict=True):
                if request.finish is not None:
                    del decoders[job.index]
                yield Piece(job.index, audio_T, job.seed, request.finish)

    def _speech(self, job: _Job, request: ActiveRequest) -> Speech:
        assert request.finish is not None
        with torch.inference_mode():
            patches_GPD = torch.stack(request.patches)
            audio_T = decode(self.vae, patches_GPD, context_of(job.prepared.layout), seed=job.seed)
        # Clones: what was made in inference mode could not be trained on.
        return Speech(
            audio_T=audio_T.clone(),
            sample_rate=self.sample_rate,
            patches_GPD=patches_GPD.clone().float().cpu(),
            seed=job.seed,
            finish=request.finish,
            attempts=job.attempt,
        )

    def _run(
        self, requests: Iterable[Request], batch_size: int, *, retry: bool
    ) -> Iterator[list[tuple[_Job, ActiveRequest]]]:
        """The requests of every step; a runaway that is tried again is left out of its last one."""
        if batch_size < 1:
            raise ValueError("batch_size must be 1 or more")
        batch = self._take_batch(batch_size)
        try:
            yield from self._steps(batch, enumerate(requests), batch_size, retry)
        except GeneratorExit:  # the caller closed the stream
            batch.leave(batch.active)
            self._keep(batch)
            raise
        self._keep(batch)  # not after an error: its buffers may hold anything

    def _keep(self, batch: Batch) -> None:
        if isinstance(batch, StaticBatch):
            self._idle.append(batch)

    def _take_batch(self, size: int) -> Batch:
        if not self._static:
            return ContinuousBatch(self.model)
        slots = 1 << (size - 1).bit_length()
        for batch in list(self._idle):
            if batch.slots == slots:
                # Another thread may have been faster.
                with contextlib.suppress(ValueError):
                    self._idle.remove(batch)
                    return batch
        return StaticBatch(self.model, slots, compiled=self._compiled)

    def _steps(
        self, batch: Batch, waiting: Iterator[tuple[int, Request]], batch_size: int, retry: bool
    ) -> Iterator[list[tuple[_Job, ActiveRequest]]]:
        jobs: dict[ActiveRequest, _Job] = {}
        retries: list[_Job] = []
        while True:
            joining: dict[ActiveRequest, _Job] = {}
            while len(batch.active) + len(joining) < batch_size:
                job = retries.pop(0) if retries else self._next_job(waiting)
                if job is None:
                    break
                joining[job.start(self.device)] = job
            batch.join(list(joining))
            jobs |= joining
            if not batch.active:
                return
            shown = []
            for request in batch.step():
                job = jobs[request]
                if request.finish is not None:
                    del jobs[request]
                    attempts_left = job.attempt < job.request.settings.attempts
                    if retry and attempts_left and job.prepared.ran_away(len(request.patches)):
                        retries.append(job.retry())
                        continue
                shown.append((job, request))
            if shown:
                yield shown

    def _next_job(self, waiting: Iterator[tuple[int, Request]]) -> _Job | None:
        for index, request in waiting:
            seed = secrets.randbits(31) if request.seed is None else request.seed
            return _Job(index, request, self.prepare(request), seed)
        return None
