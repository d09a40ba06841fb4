"""Checkpoints of a run: whole or not there, the sha256 of every file known, readable in any world and any ZeRO stage.

    FOLDER/step-00001000/  manifest.json   sha256 of every other file
                           state.json      step, score, state of the run
                           ...             files of the trainer's own layout; tensors as safetensors, no pickle

Rank 0 writes a checkpoint in the background: into a temporary folder, then manifest, fsync and rename. To object
storage it is uploaded from this machine's scratch folder file by file, the manifest last; what is resumed from is
copied there. A checkpoint that is cut off or altered is reported in the log and skipped: the one before it is used.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file

from training.run.zero_state import WEIGHT, Kinds
from voxmill.core.config import differences
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import atomic_folder, remove_folder, uploads_of
from voxmill.core.hashing import fingerprint, sha256_file
from voxmill.core.local_copies import copy_lock
from voxmill.core.storage import file_names, is_remote, raise_unavailable, scratch_folder, uri

log = logging.getLogger("voxmill")
MANIFEST, STATE = "manifest.json", "state.json"
FORMAT = 2
"""Of `state.json` and the layout around it; a checkpoint of another format cannot be resumed."""
State = TypeVar("State")
_MANIFEST_JSON = TypeAdapter(dict[str, str])


# No slots: a frozen generic class with slots cannot be called as `Saved[State](...)`.
@dataclass(frozen=True, kw_only=True)
class Saved(Generic[State]):
    """The content of `state.json`. `state` belongs to the trainer."""

    step: int
    """Steps that were made before it was saved."""
    score: float | None
    """Validation loss, lower is better; None: not measured, or not finite."""
    is_sound: bool
    """False where it was saved among steps that were skipped or that met bad data."""
    state: State
    format: int = FORMAT


class Checkpoints(Generic[State]):
    """The checkpoints in a folder: the last `keep` sound ones stay, the newest, and the `keep_best` of lowest score.

    A checkpoint saved among bad steps never replaces a sound one.

    Args:
        state_type: a dataclass; pydantic turns it into JSON and back.
        prefix: of the checkpoints' names, before eight digits or more.
    """

    def __init__(
        self, folder: Path, state_type: type[State], *, keep: int, keep_best: int = 0, prefix: str = "step-"
    ) -> None:
        self.folder, self.keep, self.keep_best, self.prefix = folder, keep, keep_best, prefix
        self._json = TypeAdapter(Saved[state_type])  # type: ignore[valid-type]
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        state: State,
        *,
        score: float | None = None,
        is_sound: bool = True,
    ) -> Path:
        """Begins to write a checkpoint and returns its path; waits for the one before it first.

        Args:
            write: writes the layout into a folder, in another thread: its tensors may not change meanwhile.
            score: validation loss, lower is better; None or not finite: never among the best.

        Raises:
            OSError: the one before it could not be written.
        """
        self.wait()
        # In the checkpoint itself, so that the order of the best survives whatever ends the run.
        finite = score if score is not None and math.isfinite(score) else None
        text = self._json.dump_json(Saved(step=step, score=finite, is_sound=is_sound, state=state))
        path = self.folder / f"{self.prefix}{step:08d}"
        self._pending = self._writer.submit(self._write, path, write, text)
        return path

    def wait(self) -> None:
        """Until the checkpoint that was begun is whole. Raises OSError where it could not be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, final: Path, write: Callable[[Path], None], state: bytes) -> None:
        # One of that name is there where a run that rolled back reaches the step again, or where it is damaged.
        with atomic_folder(final, replace=True, last=MANIFEST) as attempt:
            write(attempt)
            (attempt / STATE).write_bytes(state)
            files = sorted(path for path in attempt.rglob("*") if path.is_file())
            manifest = {path.relative_to(attempt).as_posix(): sha256_file(path) for path in files}
            (attempt / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        self._remove_old(final)
        makes_in = uploads_of(self.folder) if is_remote(self.folder) else self.folder
        for path in makes_in.glob(f".{self.prefix}*.tmp"):
            shutil.rmtree(path)

    def _remove_old(self, final: Path) -> None:
        """Removes what is no longer kept beside `final`, the one just written, and all of later steps.

        A later one was damaged or passed over when the run resumed: its steps are being made again. Left there, it
        would count among the newest, and a resumed run would go on from it.
        """
        later = [path for path in self.paths() if self.step_of(path) > self.step_of(final)]
        saved = {path: self._read_quietly(path) for path in self.paths() if path not in later}
        sound = [path for path, content in saved.items() if content is not None and content.is_sound]
        kept = {final, *sound[: self.keep], *self._best(saved)}
        for path in (*later, *saved):
            if path not in kept:
                (path / MANIFEST).unlink(missing_ok=True)  # first: what is half removed is no checkpoint
                remove_folder(path)

    def paths(self) -> list[Path]:
        """All checkpoints, damaged ones too, newest first."""
        found = [name for name in file_names(self.folder) if name.startswith(self.prefix)]
        named = [self.folder / name for name in found if name.removeprefix(self.prefix).isdigit()]
        return sorted(named, key=self.step_of, reverse=True)

    def step_of(self, path: Path) -> int:
        """Steps that were made before a checkpoint, by its name."""
        return int(path.name.removeprefix(self.prefix))

    def best(self) -> list[Path]:
        """At most `keep_best` checkpoints of the lowest score, best first; of equal ones the newer."""
        return self._best({path: self._read_quietly(path) for path in self.paths()})

    def _best(self, saved: Mapping[Path, Saved[State] | None]) -> list[Path]:
        scored = [(content.score, path) for path, content in saved.items() if content and content.score is not None]
        return [path for _, path in sorted(scored, key=lambda pair: pair[0])[: self.keep_best]]

    def latest(self, *, sound: bool = False) -> Path | None:
        """The newest whole checkpoint, or None. Damaged ones are reported in the log and skipped.

        Args:
            sound: prefer sound checkpoints: another one only where none is whole and sound.

        Raises:
            UserError: the newest is of an older version.
        """
        fallback = None
        for path in self.paths():
            reason = damage(path) or self._damage_of_copy(path)
            if reason:
                log.warning("%s: %s; skipped for the checkpoint before it", path, reason)
            elif sound and not self.read(path).is_sound:
                fallback = fallback or path
            else:
                return path
        return fallback

    def at_hand(self, path: Path) -> Path:
        """The checkpoint on this machine: itself, or a copy of one in object storage, until `let_go`.

        Raises:
            JobError: it is damaged. OSError: it cannot be read or copied.
        """
        reason = self._damage_of_copy(path)
        if reason:
            raise JobError(f"{path}: {reason}")
        return self._copy_of(path)

    def let_go(self, path: Path) -> None:
        """Removes this machine's copy, where there is one, once no rank reads it any more."""
        if is_remote(path):
            shutil.rmtree(self._copy_of(path), ignore_errors=True)

    def _copy_of(self, path: Path) -> Path:
        if not is_remote(path):
            return path
        return scratch_folder() / f"voxmill-checkpoint-{fingerprint(uri(self.folder))[:24]}-{path.name}"

    def _damage_of_copy(self, path: Path) -> str:
        """Copies a checkpoint from object storage, where it is not there yet; why it cannot be used, or ""."""
        copy = self._copy_of(path)
        if copy == path:
            return ""
        with copy_lock(copy.with_name(copy.name.removesuffix(f"-{path.name}"))):
            manifest = (path / MANIFEST).read_bytes()
            if copy.is_dir() and (copy / MANIFEST).read_bytes() == manifest:
                return ""
            for other in copy.parent.glob(copy.name.replace(path.name, f"{self.prefix}*")):
                shutil.rmtree(other)
            reason = ""
            with atomic_folder(copy) as attempt:
                for name in (*_MANIFEST_JSON.validate_json(manifest), MANIFEST):
                    (attempt / name).parent.mkdir(parents=True, exist_ok=True)
                    path.fs.get_file((path / name).path, str(attempt / name))  # type: ignore[attr-defined]
                reason = damage(attempt)
            if reason:
                shutil.rmtree(copy)
            return reason

    def hint_without(self, step: int) -> str:
        """How to resume where the weights after `step` steps give no finite loss: without the checkpoints from then on.

        Raises:
            OSError: the checkpoint that was begun could not be written.
        """
        self.wait()
        bad = [path.name for path in self.paths() if self.step_of(path) >= step]
        good = next((path for path in self.paths() if self.step_of(path) < step and not damage(path)), None)
        if good is None:
            return "lower optimizer.learning_rate and start again in an empty OUT"
        remove = f", remove {' and '.join(bad)}, whose weights give none," if bad else ""
        return f"lower optimizer.learning_rate{remove} and run the same command again to resume from {good.name}"

    def read(self, path: Path) -> Saved[State]:
        """The state that was saved.

        Raises:
            UserError: it is of an older version.
        """
        content = (path / STATE).read_bytes()
        refuse_old_format(path, content)
        saved: Saved[State] = self._json.validate_json(content)
        return saved

    def _read_quietly(self, path: Path) -> Saved[State] | None:
        try:
            return self.read(path)
        except (OSError, ValidationError, ValueError, UserError) as error:
            _raise_unavailable(path, error)
            log.warning("%s: its state cannot be read (%s)", path, str(error).splitlines()[0])
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedSettings:
    """Lines `key: old -> new`: of settings that a resumed run may not change, and of those that it may."""

    fixed: list[str]
    free: list[str]


def changed_settings(old: dict[str, JsonValue], new: dict[str, JsonValue], *, free: Collection[str]) -> ChangedSettings:
    """What changed between a checkpoint's settings and those of the run that resumes from it.

    Args:
        free: dotted keys of settings, or of sections of them, that may change.
    """
    lines = differences(old, new)
    allowed = [line for line in lines if any(f"{line.partition(': ')[0]}.".startswith(f"{key}.") for key in free)]
    return ChangedSettings(fixed=[line for line in lines if line not in allowed], free=allowed)


def refuse_old_format(path: Path, content: bytes) -> None:
    """Raises UserError where a checkpoint's `state.json` is not of today's format, ValueError where it is no object."""
    state = json.loads(content)
    if not isinstance(state, dict):
        raise ValueError(f"{STATE} holds no object")
    if state.get("format") != FORMAT:
        raise UserError(
            f"{path}: a checkpoint of another version, which cannot be resumed; start again in an empty OUT"
        )


def damage(path: Path) -> str:
    """Why a checkpoint cannot be used, or "". In object storage, which alters no file, it is only looked for all files.

    Raises:
        UserError: it is not damaged but of an older version, which wrote no manifest.
    """
    old = path / "training" / STATE
    try:
        if old.is_file() and not (path / MANIFEST).exists():
            refuse_old_format(path, old.read_bytes())
        manifest = _MANIFEST_JSON.validate_json((path / MANIFEST).read_bytes())
        if STATE not in manifest:
            return f"not whole (no {STATE} in its manifest)"
        if any(name.startswith("/") or ".." in name.split("/") for name in manifest):
            return "its manifest names files outside it"
        if is_remote(path):
            missing = manifest.keys() - _files_below(path)
            return f"not whole (without {min(missing)})" if missing else ""
        for name, expected in manifest.items():
            if sha256_file(path / name) != expected:
                return f"{name} was altered or cut off"
        return ""
    except ValidationError:
        return f"not whole (its {MANIFEST} cannot be read)"
    except (OSError, ValueError) as error:
        _raise_unavailable(path, error)
        return f"not whole ({error})"


def _raise_unavailable(path: Path, error: Exception) -> None:
    """A store that does not answer has the checkpoint; what a disk of this machine cannot read is lost."""
    if is_remote(path):
        raise_unavailable(error)


def _files_below(path: Path) -> set[str]:
    root = path.path.rstrip("/")  # type: ignore[attr-defined]
    return {name.removeprefix(f"{root}/") for name in path.fs.find(root, refresh=True)}  # type: ignore[attr-defined]


def write_tensors(folder: Path, tensors: Mapping[str, Kinds]) -> None:
    """One safetensors file a kind (weight, exp_avg, ...); every parameter has the same kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in next(iter(tensors.values()), {}):
        by_name = {name: values[kind].contiguous() for name, values in tensors.items()}
        save_file(by_name, folder / f"{kind}.safetensors")


def read_tensors(folder: Path) -> Iterator[tuple[str, Kinds]]:
    """(name, tensors by kind) of every parameter that `write_tensors` wrote, read one by one."""
    with ExitStack() as stack:
        paths = sorted(folder.glob("*.safetensors"))
        files = {file.stem: stack.enter_context(safe_open(file, framework="pt")) for file in paths}
        for name in files[WEIGHT].keys():  # noqa: SIM118 (no mapping)
            yield name, {kind: file.get_tensor(name) for kind, file in files.items()}
