"""A folder of finished recordings as a system: `NAME=wavs:FOLDER`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmarks.benchmark import Utterance
from evaluation.systems.base import Failure, System
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import to_path

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")


class WavFolder(System):
    """Finished recordings, named by utterance; nothing is synthesized and nothing written."""

    def __init__(self, name: str, place: str):
        path = to_path(place)
        if not path.is_dir():
            raise UserError(f"--system {name}=wavs:{place}: no such folder; name one with wavs named by utterance")
        self.name, self.folder, self._folder_name = name, local_copy(path, recursive=True), path.name

    def identity(self) -> dict[str, str]:
        return {"kind": "wavs", "folder": self._folder_name}

    def path_of(self, folder: Path, utterance: Utterance) -> Path:
        paths = (self.folder / f"{utterance.id}{suffix}" for suffix in SUFFIXES)
        return next((path for path in paths if path.exists()), self.folder / f"{utterance.id}.wav")

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        yield from ()
