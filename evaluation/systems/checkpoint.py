"""A checkpoint folder in the released layout as a system: `NAME=checkpoint:FOLDER[#RECIPE]`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from evaluation.benchmarks.benchmark import Utterance
from evaluation.systems.base import Failure, System
from voxmill.core.audio import encode_wav
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.hashing import sha256_file
from voxmill.core.local_copies import local_copy
from voxmill.core.machine.devices import resolve_device
from voxmill.core.storage import to_path

RECIPES = ("reference+continuation", "continuation", "reference", "description")


@dataclass(frozen=True, slots=True)
class _VoiceInputs:
    """Arguments of `Generator.voice`."""

    reference: Path | None = None
    prompt: Path | None = None
    prompt_text: str | None = None


class Checkpoint(System):
    """Speaks with `model.generation` by a recipe of report section 3.4.

    Args:
        recipe: one of RECIPES, "" for the first.
        batch: utterances that are spoken at once.
    """

    takes_seed = True

    def __init__(self, name: str, place: str, recipe: str, device: str = "auto", batch: int = 16):
        self.name, self.folder, self.recipe = name, local_copy(to_path(place)), recipe or RECIPES[0]
        self.device, self.batch = device, batch
        if self.recipe not in RECIPES:
            raise UserError(f"--system {name}: recipe {self.recipe!r} is unknown; use one of {', '.join(RECIPES)}")
        if not (self.folder / "config.json").exists():
            raise UserError(f"--system {name}=checkpoint:{place}: no config.json there; name a checkpoint folder")

    def identity(self) -> dict[str, str]:
        return {
            "kind": "checkpoint",
            "checkpoint_sha256": self._sha256,
            "recipe": self.recipe,
            "voxmill": version("voxmill"),
        }

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            # Weights, tokenizer and settings, whatever the layout calls them; a page for people is none of these.
            if path.is_file() and not path.name.startswith(".") and path.suffix != ".md":
                digest.update(f"{path.name}\0{sha256_file(path)}\n".encode())
        return digest.hexdigest()

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        missing = [one for one in utterances if not self.path_of(folder, one).exists()]
        if not missing:
            return
        from model.checkpoint import load_checkpoint
        from model.generation.generator import Generator
        from model.generation.request import Request
        from model.generation.voice import Voice

        generator = Generator.of(load_checkpoint(self.folder, device=resolve_device(self.device)))
        voices: dict[_VoiceInputs, Voice] = {}
        requests: list[Request] = []
        requested: list[Utterance] = []
        for one in missing:
            inputs = self._voice_inputs(one)
            if isinstance(inputs, str):
                yield Failure(one, inputs)
                continue
            try:
                if inputs not in voices:
                    voices[inputs] = generator.voice(
                        reference=inputs.reference, prompt=inputs.prompt, prompt_text=inputs.prompt_text
                    )
                request = Request(one.text, one.description, voices[inputs], seed=seed)
                generator.prepare(request)
            except UserError as error:
                yield Failure(one, str(error)[:160])
                continue
            requests.append(request)
            requested.append(one)
        for index, speech in generator.generate_many(requests, batch_size=self.batch):
            wav = encode_wav(speech.audio_T.numpy(), speech.sample_rate)
            write_atomically(self.path_of(folder, requested[index]), wav)

    def _voice_inputs(self, one: Utterance) -> _VoiceInputs | str:
        """What the voice is made of, or why the recipe does not fit the utterance."""
        if one.reference is None or self.recipe == "description":
            return _VoiceInputs()
        # The model takes a description with a reference, and not with a prompt.
        if self.recipe == "reference" or one.description:
            return _VoiceInputs(reference=one.reference)
        if not one.reference_text:
            return f"recipe {self.recipe} needs the reference's text"
        reference = None if self.recipe == "continuation" else one.reference
        return _VoiceInputs(reference=reference, prompt=one.reference, prompt_text=one.reference_text)
