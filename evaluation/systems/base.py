"""What is evaluated: a checkpoint, a folder of finished wavs, a command line, or a speech endpoint.

`NAME=KIND:REST` names one on the command line:

    voxcpm2=checkpoint:VoxCPM2/            recipe reference+continuation where there is a reference (report Table 4)
    cont=checkpoint:VoxCPM2/#continuation  or #reference; #description speaks without the reference
    peer=wavs:outputs/                     outputs/ID.wav (flac, mp3, ogg)
    espeak=command:espeak-ng -v {language} -w {output} -- {text}
    api=speech:http://127.0.0.1:8000/v1#MODEL/VOICE

Every wav appears under its name only when it is whole, so that the same command goes on after a crash.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.benchmarks.benchmark import Utterance
from voxmill.core.errors import UserError
from voxmill.core.hashing import fingerprint
from voxmill.core.languages import base_language

Failure = tuple[Utterance, str]
"""An utterance that a system did not speak, and why, in a few words."""
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
RECIPES = ("reference+continuation", "continuation", "reference", "description")


class System(ABC):
    """A named system. `takes_seed`: whether another seed gives other speech."""

    takes_seed = False

    def __init__(self, name: str):
        self.name = name

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What its speech depends on, in plain values: kind, checksums, recipe."""

    def path_of(self, folder: Path, utterance: Utterance) -> Path:
        """Where its speech of an utterance lies, `folder` being the run's own place for this system and seed."""
        return folder / f"{utterance.id}.wav"

    @abstractmethod
    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        """Writes what is missing and yields what it could not speak.

        Raises:
            UserError: the system itself cannot be used. JobError: it cannot go on.
        """


class WavFolder(System):
    """Finished recordings, named by utterance; nothing is synthesized and nothing written."""

    def __init__(self, name: str, place: str):
        super().__init__(name)
        self.folder = Path(place)
        if not self.folder.is_dir():
            raise UserError(f"--system {name}=wavs:{place}: no such folder; name one with wavs named by utterance")

    def identity(self) -> dict[str, Any]:
        return {"kind": "wavs", "folder": self.folder.name}

    def path_of(self, folder: Path, utterance: Utterance) -> Path:
        found = (self.folder / f"{utterance.id}{suffix}" for suffix in SUFFIXES)
        return next((path for path in found if path.exists()), self.folder / f"{utterance.id}.wav")

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        yield from ()


class Command(System):
    """Any program that writes a wav. Words may hold {text}, {output}, {reference}, {reference_text}, {language},
    {description} and {seed}; without {text} the text comes on standard input. No shell is involved."""

    FIELDS = ("text", "output", "reference", "reference_text", "language", "description", "seed")

    def __init__(self, name: str, template: str, timeout: float = 120.0, workers: int = 1):
        super().__init__(name)
        try:
            self.words = shlex.split(template)
            for word in self.words:
                word.format(**dict.fromkeys(self.FIELDS, ""))
        except (ValueError, KeyError, IndexError) as error:
            raise UserError(
                f"--system {name}=command:{template}: {error}; fields are {', '.join(self.FIELDS)}"
            ) from None
        if "{output}" not in template:
            raise UserError(f"--system {name}=command:{template}: no {{output}} in it; say where the wav is written")
        program = shutil.which(self.words[0])
        if program is None:
            raise UserError(f"--system {name}=command: {self.words[0]} is not installed here")
        self.program, self.template = program, template
        self.timeout, self.workers = timeout, workers
        self.takes_seed = "{seed}" in template

    def identity(self) -> dict[str, Any]:
        with open(self.program, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"kind": "command", "command": self.template, "program_sha256": digest}

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        missing = [one for one in utterances if not self.path_of(folder, one).exists()]
        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            for one, problem in zip(missing, pool.map(lambda u: self._one(u, folder, seed), missing), strict=True):
                if problem:
                    yield one, problem

    def _one(self, one: Utterance, folder: Path, seed: int) -> str | None:
        path = self.path_of(folder, one)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part.wav")
        values = {
            "text": one.text,
            "output": str(part),
            "language": base_language(one.language),
            "seed": str(seed),
            "reference": str(one.reference or ""),
            "reference_text": one.reference_text or "",
            "description": one.description or "",
        }
        for field in ("reference", "reference_text", "description"):
            if f"{{{field}}}" in self.template and not values[field]:
                return f"no {field.replace('_', ' ')} for {{{field}}}"
        command = [self.program, *(word.format(**values) for word in self.words[1:])]
        said = None if "{text}" in self.template else one.text
        try:
            done = subprocess.run(
                command, input=said, capture_output=True, text=True, errors="replace", timeout=self.timeout
            )
        except subprocess.TimeoutExpired:
            part.unlink(missing_ok=True)
            return f"no answer in {self.timeout:.0f} s"
        except (OSError, ValueError) as error:
            return str(error).splitlines()[0][:120]
        if done.returncode or not part.exists():
            part.unlink(missing_ok=True)
            last = (done.stderr.strip().splitlines() or ["wrote no wav"])[-1]
            return f"exit status {done.returncode}: {last[:120]}"
        os.replace(part, path)
        return None


class Checkpoint(System):
    """A checkpoint folder in the released layout, spoken by `model.generation` in a recipe of report section 3.4."""

    takes_seed = True

    def __init__(self, name: str, place: str, recipe: str, device: str = "auto", batch: int = 16):
        super().__init__(name)
        self.folder, self.recipe, self.device, self.batch = Path(place), recipe or RECIPES[0], device, batch
        if self.recipe not in RECIPES:
            raise UserError(f"--system {name}: recipe {self.recipe!r} is unknown; use one of {', '.join(RECIPES)}")
        if not (self.folder / "config.json").exists():
            raise UserError(f"--system {name}=checkpoint:{place}: no config.json there; name a checkpoint folder")

    def identity(self) -> dict[str, Any]:
        return {"kind": "checkpoint", "checkpoint_sha256": self._sha256, "recipe": self.recipe}

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (".safetensors", ".pth", ".json"):
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        missing = [one for one in utterances if not self.path_of(folder, one).exists()]
        if not missing:
            return
        import soundfile
        import torch

        from model.checkpoint import load_checkpoint
        from model.generation.generator import Generator
        from model.generation.request import Request

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        generator = Generator.of(load_checkpoint(self.folder, device=device))
        voices: dict[Any, Any] = {}
        requests, asked = [], []
        for one in missing:
            options = self._voice(one)
            if isinstance(options, str):
                yield one, options
                continue
            try:
                key = tuple(sorted(options.items()))
                if key not in voices:
                    voices[key] = generator.voice(**options)
                request = Request(one.text, one.description, voices[key], seed=seed)
                generator.prepare(request)
            except UserError as error:
                yield one, str(error)[:160]
                continue
            requests.append(request)
            asked.append(one)
        for index, speech in generator.generate_many(requests, batch_size=self.batch):
            path = self.path_of(folder, asked[index])
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part.wav")
            soundfile.write(part, speech.audio_T.clamp(-1, 1).numpy(), speech.sample_rate, subtype="PCM_16")
            os.replace(part, path)

    def _voice(self, one: Utterance) -> dict[str, Any] | str:
        """Arguments of `Generator.voice`, or why there are none."""
        if one.reference is None or self.recipe == "description":
            return {}
        reference = {"reference": one.reference}
        # A description goes with a reference and not with a prompt: the model's own rule.
        if self.recipe == "reference" or one.description:
            return reference
        if not one.reference_text:
            return f"recipe {self.recipe} needs the reference's text"
        prompt: dict[str, Any] = {"prompt": one.reference, "prompt_text": one.reference_text}
        return prompt if self.recipe == "continuation" else reference | prompt


def read_system(named: str, *, device: str = "auto", workers: int = 1) -> System:
    """The system that `NAME=KIND:REST` names.

    Raises:
        UserError: not of this form, an unknown kind, or something in it that is not there.
    """
    name, equals, spec = named.partition("=")
    kind, colon, rest = spec.partition(":")
    if not equals or not colon or not name or set(name) & set('/\\:*?"<>| \0') or name.startswith("."):
        raise UserError(f"--system {named!r}: write NAME=KIND:REST, such as espeak=command:... or peer=wavs:FOLDER")
    if kind == "wavs":
        return WavFolder(name, rest)
    if kind == "command":
        return Command(name, rest, workers=workers)
    if kind == "checkpoint":
        place, _, recipe = rest.partition("#")
        return Checkpoint(name, place, recipe, device)
    if kind == "speech":
        from evaluation.systems.speech_endpoint import SpeechEndpoint

        return SpeechEndpoint(name, rest, workers=workers)
    raise UserError(f"--system {named!r}: kind {kind!r} is unknown; use checkpoint, wavs, command or speech")


def folder_of(out: Path, system: System, benchmark_hash: str, seed: int) -> Path:
    """Where a run keeps a system's speech of a benchmark; another system, text or seed has another place."""
    key = fingerprint({"system": system.identity(), "benchmark": benchmark_hash, "seed": seed})
    return out / "wavs" / f"{system.name}-{key[:12]}"
