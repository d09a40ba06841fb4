"""What evaluation knows of a system: its name, what its speech depends on, and that it speaks utterances into files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evaluation.benchmarks.benchmark import Utterance
from voxmill.core.hashing import fingerprint


@dataclass(frozen=True, slots=True)
class Failure:
    """An utterance that a system did not speak, and why, in a few words."""

    utterance: Utterance
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemOutput:
    """A system's wav of an utterance; `failure` is the reason why there is none."""

    utterance: Utterance
    wav: Path
    failure: str | None = None
    seed: int = 0


class System(Protocol):
    """A named system. `takes_seed`: whether another seed gives other speech.

    Every wav appears under its name only when it is complete, so that a second run speaks only what is missing.
    """

    name: str
    takes_seed: bool = False
    version: str = ""
    """What the user names so that speech of another version is spoken anew; "" without."""

    def identity(self) -> dict[str, str]:
        """What its speech depends on: kind, checksums, recipe."""

    def covered(self) -> str:
        """What of its files the identity covers, for the user to know when to name a version; "" where it is plain."""
        return ""

    def path_of(self, folder: Path, utterance: Utterance) -> Path:
        """Where its speech of an utterance lies; `folder` is the one of this system and seed.

        Another text, description or reference has another name, so what is asked again is there whatever list it is in.
        """
        return folder / f"{utterance.id}-{utterance.key}.wav"

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        """Writes the wavs that are missing and yields the utterances that could not be spoken.

        Raises:
            UserError: the system itself cannot be used. JobError: it stopped working.
        """


def identity_of(system: System) -> dict[str, str]:
    """A system's identity with the version that the user named."""
    return system.identity() | ({"version": system.version} if system.version else {})


def speech_folder(out: Path, system: System, seed: int) -> Path:
    """Where a run keeps a system's speech; another system or seed has another folder."""
    return out / "wavs" / f"{system.name}-{fingerprint({'system': identity_of(system), 'seed': seed})[:12]}"


def partial_wav(path: Path) -> Path:
    """A temporary name beside `path` for programs that choose the format by the suffix."""
    return path.with_name(f".{path.name}.part.wav")
