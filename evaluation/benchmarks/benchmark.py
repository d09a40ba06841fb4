"""A benchmark as its readers return it: utterances to speak, and lines that could not be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_file, sha256_text


@dataclass(frozen=True)
class Utterance:
    """One text to speak.

    `id` names the wav (`ja/uttid_1` lies in a subfolder); `group` is the row of the benchmark's table that it counts
    for; `reference` is a recording of the speaker to clone, `reference_text` its transcript; `description` tells how
    to speak (InstructTTSEval); `emotion` is the one that the reference has, and `emotion_level` its strength
    (CV3-Eval: high, low).
    """

    id: str
    text: str
    language: str
    group: str
    reference: Path | None = None
    reference_text: str | None = None
    description: str | None = None
    emotion: str | None = None
    emotion_level: str | None = None

    @cached_property
    def key(self) -> str:
        """Ten hex digits of all that its speech depends on; of the reference the content, not the path."""
        parts = (self.text, self.language, self.reference_text or "", self.description or "", _content(self.reference))
        return sha256_text("\0".join(parts))[:10]


@dataclass(frozen=True)
class Malformed:
    """A line that is no utterance, and why."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as read. `protocol` names the normalisation of its official scores (`normalisation.PROTOCOLS`)."""

    name: str
    protocol: str
    utterances: tuple[Utterance, ...]
    malformed: tuple[Malformed, ...] = field(default_factory=tuple)

    def fingerprint(self) -> str:
        """sha256 (hex) of all utterances, in order; of references the contents, not the paths."""
        digest = hashlib.sha256()
        for one in self.utterances:
            parts = (one.id, one.text, one.language, one.reference_text or "", one.description or "")
            joined = "\0".join([*parts, _content(one.reference)])
            digest.update(joined.encode() + b"\n")
        return digest.hexdigest()


def _content(reference: Path | None) -> str:
    """sha256 of a reference, "" without one."""
    if reference is None:
        return ""
    try:
        state = reference.stat()
    except FileNotFoundError:
        return "missing"
    return _hashed(reference, state.st_size, state.st_mtime_ns)


@cache
def _hashed(path: Path, size: int, mtime_ns: int) -> str:
    """Many utterances share a reference, which is read once as long as it stays what it is."""
    return sha256_file(path)


class Collector:
    """Gathers utterances and malformed lines, and keeps ids unique and fit to name files."""

    def __init__(self) -> None:
        self.utterances: list[Utterance] = []
        self.malformed: list[Malformed] = []
        self._lines: dict[str, int] = {}

    def add(self, utterance: Utterance, path: Path, line: int) -> None:
        """Takes an utterance, or notes why it cannot be used."""
        id_ = utterance.id
        if not utterance.text.strip():
            self.fail(path, line, "the text is empty")
        elif not id_ or any(p in ("", ".", "..") for p in id_.split("/")) or set(id_) & set('\\:*?"<>|\0\n\r\t'):
            self.fail(path, line, f"id {id_!r} cannot name a file")
        elif id_.lower() in self._lines:
            self.fail(path, line, f"id {id_!r} is line {self._lines[id_.lower()]}'s already")
        else:
            self._lines[id_.lower()] = line
            self.utterances.append(utterance)

    def fail(self, path: Path, line: int, reason: str) -> None:
        """Notes a line that cannot be used."""
        self.malformed.append(Malformed(path, line, reason))

    def benchmark(self, name: str, protocol: str, source: Path) -> Benchmark:
        """The benchmark of what was collected.

        Raises:
            UserError: nothing usable; names the first malformed line.
        """
        if not self.utterances:
            first = f" ({self.malformed[0]})" if self.malformed else ""
            raise UserError(f"{source}: no utterance of {name} in it{first}; see docs/evaluation.md for its layout")
        return Benchmark(name, protocol, tuple(self.utterances), tuple(self.malformed))


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a UTF-8 file; empty lines are skipped.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name the benchmark's own file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    # Only line feeds end a line: texts may hold U+2028 and its like, which `splitlines` would break at.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def first_existing(candidates: Sequence[Path]) -> Path:
    """The first path that exists; the first of all where none does, so that an error names it."""
    return next((path for path in candidates if path.exists()), candidates[0])


Reader = Callable[[Path], Benchmark]
