"""Any program that writes a wav as a system: `NAME=command:LINE`."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from evaluation.benchmarks.benchmark import Utterance
from evaluation.systems.base import Failure, System, partial_wav
from voxmill.core.errors import UserError
from voxmill.core.files import publish
from voxmill.core.hashing import fingerprint, sha256_file
from voxmill.data.languages import base_language


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):
        # A word may be longer than any file's name, or hold a null.
        return False


class Command(System):
    """A command line whose words may hold {text}, {output}, {reference}, {reference_text}, {language}, {description}
    and {seed}; without {text} the text is passed on standard input. No shell is involved.

    Args:
        timeout: seconds after which a program is stopped.
        workers: programs that run at once.
    """

    FIELDS = ("text", "output", "reference", "reference_text", "language", "description", "seed")

    def __init__(self, name: str, template: str, timeout: float = 120.0, workers: int = 1):
        try:
            self.words = shlex.split(template)
            for word in self.words:
                word.format(**dict.fromkeys(self.FIELDS, ""))
        except (ValueError, KeyError, IndexError) as error:
            raise UserError(
                f"--system {name}=command:{template}: {error}; fields are {', '.join(self.FIELDS)}"
            ) from None
        if "{output}" not in template:
            raise UserError(f"--system {name}=command:{template}: no {{output}} in it; add where the wav is written")
        program = shutil.which(self.words[0])
        if program is None:
            raise UserError(f"--system {name}=command: {self.words[0]} is not installed; install it or name its path")
        self.name, self.program, self.template = name, program, template
        self.timeout, self.workers = timeout, workers
        self.takes_seed = "{seed}" in template

    def identity(self) -> dict[str, str]:
        own = {"kind": "command", "command": self.template, "program_sha256": sha256_file(self.program)}
        files = self._files
        return own | ({"files": ", ".join(files), "files_sha256": fingerprint(files)} if files else {})

    def covered(self) -> str:
        named = ", ".join([self.program, *self._files])
        return (
            f"{self.name}: speech is spoken anew when the line, {named} changes; for anything else that it "
            f"depends on, write --system {self.name}=command,version=2:..."
        )

    @cached_property
    def _files(self) -> dict[str, str]:
        """sha256 of the files that the line names: a script, a model, a configuration; also as `--model=FILE`."""
        candidates = [part for word in self.words[1:] for part in (word, word.partition("=")[2])]
        return {part: sha256_file(part) for part in candidates if part and "{" not in part and _is_file(part)}

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        missing = [one for one in utterances if not self.path_of(folder, one).exists()]
        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            reasons = pool.map(lambda utterance: self._speak_one(utterance, folder, seed), missing)
            for one, reason in zip(missing, reasons, strict=True):
                if reason:
                    yield Failure(one, reason)

    def _speak_one(self, one: Utterance, folder: Path, seed: int) -> str | None:
        """None, or why there is no wav."""
        path = self.path_of(folder, one)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = partial_wav(path)
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
        line = [self.program, *(word.format(**values) for word in self.words[1:])]
        standard_input = None if "{text}" in self.template else one.text
        try:
            done = subprocess.run(
                line, input=standard_input, capture_output=True, text=True, errors="replace", timeout=self.timeout
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
        publish(part, path)
        return None
