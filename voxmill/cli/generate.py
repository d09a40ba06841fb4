"""`voxmill generate`: one text to a WAV file or a stream, or a JSONL of requests to a folder, batched."""

import contextlib
import json
import os
import sys
import time
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from voxmill.cli.settings import local_path
from voxmill.core.errors import JobError, UserError, command
from voxmill.core.files import atomic_path, write_atomically
from voxmill.core.machine.devices import resolve_device
from voxmill.core.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from model.checkpoint import Checkpoint
    from model.generation.generator import Generator
    from model.generation.request import Request
    from model.generation.request_file import RequestLine
    from model.generation.voice import Voice

STDOUT = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the command. `batch`: requests in progress at once; `dtype` None: the checkpoint's."""

    checkpoint: Path
    out: Path
    text: str | None = None
    description: str | None = None
    reference: Path | None = None
    prompt: Path | None = None
    prompt_text: str | None = None
    requests: Path | None = None
    stream: bool = False
    seed: int | None = None
    lora: Path | None = None
    steps: int | None = None
    guidance: float | None = None
    min_len: int | None = None
    max_len: int | None = None
    batch: int = 16
    device: str = "auto"
    dtype: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A line of results.jsonl: one request's file, its length in seconds, and the seed that gives it again."""

    id: str
    file: str
    seconds: float
    seed: int
    finish: str
    attempts: int


def run(options: Options) -> None:
    """Loads the checkpoint and speaks what the options ask for.

    Raises:
        UserError: options that do not go together, a bad request, a bad file, no checkpoint.
    """
    lines = _lines(options)  # first of all: a typing mistake should not wait for a checkpoint
    from model.generation.generator import Generator

    clock = time.perf_counter()
    generator = Generator.of(_load(options))
    requests = _requests(lines, generator)
    loading = time.perf_counter() - clock
    if options.requests is not None:
        _many(options, lines, requests, generator, loading)
    elif options.stream:
        _stream(options, requests[0], generator, loading)
    else:
        _one(options, requests[0], generator, loading)


def _lines(options: Options) -> "list[RequestLine]":
    from model.generation.request_file import RequestLine, check_seed, check_settings, read_request_lines

    named = ("steps", "guidance", "min_len", "max_len")
    settings = {key: getattr(options, key) for key in named if getattr(options, key) is not None}
    seed = check_seed(options.seed)
    if options.batch < 1:
        raise UserError(f"--batch {options.batch} must be 1 or more")
    if options.requests is not None:
        for key in ("text", "description", "reference", "prompt", "prompt_text"):
            if getattr(options, key) is not None:
                raise UserError(f"--{key.replace('_', '-')} does not go with --requests; write it into its lines")
        if options.stream:
            raise UserError("--stream does not go with --requests; give one --text")
        if options.out == STDOUT or (options.out.exists() and not options.out.is_dir()):
            raise UserError(f"{options.out}: with --requests, -o names a folder")
        return read_request_lines(options.requests, settings=settings, seed=seed)
    if options.text is None:
        raise UserError("no text; give --text, or --requests FILE.jsonl")
    if options.out != STDOUT and options.out.is_dir():
        raise UserError(f"{options.out}: is a folder; name a WAV file, or - for raw PCM on stdout")
    line = RequestLine(
        "speech",
        options.text,
        description=options.description,
        reference=options.reference,
        prompt=options.prompt,
        prompt_text=options.prompt_text,
        seed=seed,
        settings=check_settings(settings),
    )
    return [line]


def _load(options: Options) -> "Checkpoint":
    import torch

    from model.checkpoint import load_checkpoint

    device = resolve_device(options.device, setting="--device")
    dtypes = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if options.dtype is not None and options.dtype not in dtypes:
        raise UserError(f"--dtype {options.dtype}: use {' or '.join(dtypes)}")
    dtype = None if options.dtype is None else dtypes[options.dtype]
    checkpoint = load_checkpoint(options.checkpoint, device=device, dtype=dtype)
    if options.lora is not None:
        from model.lora import load_lora, merge_lora

        load_lora(checkpoint.model, options.lora)
        merge_lora(checkpoint.model)
    return checkpoint


def _requests(lines: "list[RequestLine]", generator: "Generator") -> "list[Request]":
    """Every request with its voice, checked; each file is read once."""
    from model.generation.request import Request
    from model.sequence.layouts import compose_text

    voices: dict[tuple[Path | None, Path | None, str | None], Voice] = {}
    requests = []
    for line in lines:
        with _located(line.location):
            if not line.text.strip():
                raise UserError("the text is empty; give some words to speak")
            compose_text(line.text, description=line.description, prompt_text=line.prompt_text)
            key = (line.reference, line.prompt, line.prompt_text)
            if key not in voices:
                voices[key] = generator.voice(
                    reference=line.reference, prompt=line.prompt, prompt_text=line.prompt_text
                )
            request = Request(line.text, line.description, voices[key], line.settings, line.seed)
            generator.prepare(request)
            requests.append(request)
    return requests


@contextlib.contextmanager
def _located(location: str) -> Iterator[None]:
    """Puts the line of a requests file before an error's message."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{location}: {error}" if location else str(error)) from None


def _one(options: Options, request: "Request", generator: "Generator", loading: float) -> None:
    clock = time.perf_counter()
    with _progress().stage("Speaking", None, "patches") as bar:
        # Not streamed: a whole speech may be tried again, and the audio is the same.
        speech = generator.generate(request, on_patch=lambda count: bar.advance(note=_length(generator, count)))
    wall = time.perf_counter() - clock
    if options.out == STDOUT:
        with _pipe() as sink:
            sink.write(_pcm(speech.audio_T))
    else:
        _write_wav(options.out, speech.audio_T, speech.sample_rate)
    _warn(options.out, speech.finish)
    attempts = "" if speech.attempts == 1 else f", {speech.attempts} attempts"
    _report(options, f"{_rtf(speech.seconds, wall)} (loading {loading:.1f} s, seed {speech.seed}{attempts})")


def _stream(options: Options, request: "Request", generator: "Generator", loading: float) -> None:
    clock = time.perf_counter()
    first, seconds, seed, finish = 0.0, 0.0, 0, None
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(_progress().stage("Speaking", None, "patches"))
        pipe, file = None, None
        if options.out == STDOUT:
            pipe = stack.enter_context(_pipe())
        else:
            file = stack.enter_context(_open_wav(options.out, generator.sample_rate))
        for count, piece in enumerate(generator.stream_many([request], batch_size=1), start=1):
            if pipe is not None:
                pipe.write(_pcm(piece.audio_T))
                pipe.flush()
            elif file is not None:
                file.writeframes(_pcm(piece.audio_T))  # updates the header too: the file is whole at any time
            first = first or time.perf_counter() - clock
            seconds += piece.audio_T.shape[0] / generator.sample_rate
            seed, finish = piece.seed, piece.finish
            bar.advance(note=_length(generator, count))
    _warn(options.out, finish)
    wall = time.perf_counter() - clock
    _report(options, f"{_rtf(seconds, wall)} (loading {loading:.1f} s, first piece {first * 1000:.0f} ms, seed {seed})")


def _many(
    options: Options,
    lines: "list[RequestLine]",
    requests: "list[Request]",
    generator: "Generator",
    loading: float,
) -> None:
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.out}: cannot be made ({error.strerror}); name another folder") from None
    clock = time.perf_counter()
    seconds = 0.0
    results: dict[int, Result] = {}
    with _progress().stage("Speaking", len(requests), "requests") as bar:
        for index, speech in generator.generate_many(requests, batch_size=options.batch):
            path = options.out / f"{lines[index].name}.wav"
            _write_wav(path, speech.audio_T, speech.sample_rate)
            _warn(path, speech.finish)
            seconds += speech.seconds
            results[index] = Result(
                id=lines[index].name,
                file=path.name,
                seconds=round(speech.seconds, 3),
                seed=speech.seed,
                finish=speech.finish,
                attempts=speech.attempts,
            )
            bar.advance(note=f"{seconds:.1f} s of speech")
    wall = time.perf_counter() - clock
    text = "".join(json.dumps(asdict(results[index]), ensure_ascii=False) + "\n" for index in sorted(results))
    write_atomically(options.out / "results.jsonl", text)
    _report(options, f"{len(results)} requests, {_rtf(seconds, wall)} (loading {loading:.1f} s)")


def _pcm(audio_T: "Tensor") -> bytes:
    """16-bit little-endian samples of audio in [-1, 1]; louder samples are clipped."""
    samples: bytes = (audio_T.clamp(-1, 1) * 32767).round().numpy().astype("<i2").tobytes()
    return samples


def _open_wav(path: Path, rate: int) -> wave.Wave_write:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = wave.open(str(path), "wb")  # noqa: SIM115, the caller closes it
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(rate)
    return file


def _write_wav(path: Path, audio_T: "Tensor", rate: int) -> None:
    try:
        with atomic_path(path) as temporary, _open_wav(temporary, rate) as file:
            file.writeframes(_pcm(audio_T))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from None


@contextlib.contextmanager
def _pipe() -> Iterator[IO[bytes]]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at its end
        raise JobError("stdout was closed before the speech was finished") from None


def _progress() -> Progress:
    # stdout may carry the speech.
    return Progress(file=sys.stderr, transient=True)


def _length(generator: "Generator", patches: int) -> str:
    samples = patches * generator.config.patch_size * generator.vae.samples_per_latent
    return f"{samples / generator.sample_rate:.2f} s of speech"


def _rtf(seconds: float, wall: float) -> str:
    return f"{seconds:.2f} s of speech in {wall:.2f} s, RTF {wall / seconds:.3f}"


def _warn(path: Path, finish: str | None) -> None:
    if finish == "length":
        name = "stdout" if path == STDOUT else path
        problem = "stopped at its longest length, not by the model; the end may be cut off"
        print(f"voxmill generate: {name}: {problem}", file=sys.stderr)


def _report(options: Options, text: str) -> None:
    stdout = options.out == STDOUT
    print(f"{'stdout' if stdout else options.out}: {text}", file=sys.stderr if stdout else sys.stdout)


@command("voxmill generate")
def generate(
    checkpoint: Annotated[Path, typer.Option(parser=local_path, help="a checkpoint folder in the released layout")],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", parser=local_path, help="WAV file, - for raw 16-bit PCM on stdout, or a folder"),
    ],
    text: Annotated[str | None, typer.Option(help="text to speak")] = None,
    description: Annotated[str | None, typer.Option(help='voice and style, such as "a warm, deep voice"')] = None,
    reference: Annotated[Path | None, typer.Option(parser=local_path, help="a recording of the speaker")] = None,
    prompt: Annotated[Path | None, typer.Option(parser=local_path, help="a recording to continue")] = None,
    prompt_text: Annotated[str | None, typer.Option(help="the words of the prompt")] = None,
    requests: Annotated[
        Path | None, typer.Option(parser=local_path, help="JSONL of many requests, generated in a batch")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="write every 160 ms of speech as soon as it is generated")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="the same seed gives the same speech")] = None,
    lora: Annotated[Path | None, typer.Option(parser=local_path, help="folder of LoRA weights to merge")] = None,
    steps: Annotated[int | None, typer.Option(help="Euler steps a patch [10]")] = None,
    guidance: Annotated[float | None, typer.Option(help="guidance weight, 1 to 3 [2.0]")] = None,
    min_len: Annotated[int | None, typer.Option(help="patches before it may stop, less 2 [2]")] = None,
    max_len: Annotated[int | None, typer.Option(help="patches at most [4096]")] = None,
    batch: Annotated[int, typer.Option(help="requests in progress at once")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32 [the checkpoint's]")] = None,
) -> None:
    """Speaks a text, or every request of a JSONL file.

    \b
    Examples:
      voxmill generate --checkpoint VoxCPM2/ --text "Good evening." --reference anna.wav -o evening.wav
      voxmill generate --checkpoint VoxCPM2/ --requests requests.jsonl -o speech/
      voxmill generate --checkpoint VoxCPM2/ --text "Good evening." --stream -o - | aplay -f S16_LE -r 48000
    """
    run(
        Options(
            checkpoint=checkpoint,
            out=out,
            text=text,
            description=description,
            reference=reference,
            prompt=prompt,
            prompt_text=prompt_text,
            requests=requests,
            stream=stream,
            seed=seed,
            lora=lora,
            steps=steps,
            guidance=guidance,
            min_len=min_len,
            max_len=max_len,
            batch=batch,
            device=device,
            dtype=dtype,
        )
    )
