"""Checkpoints of a run: whole or not there, the sha256 of every file known, readable in any world and any ZeRO stage.

    FOLDER/step-00001000/  manifest.json   sha256 and size of every other file
                           state.json      step, score, state of the run
                           ...             files of the trainer's own layout; tensors in files of the ranks, no pickle

Every rank writes its part in the background: into one temporary folder, which the first rank completes and renames once
all parts are whole. To object storage each rank uploads its files from its machine's scratch folder, the first rank the
manifest last. A checkpoint that is cut off or altered is reported in the log and skipped: the one before it is used.
"""

import errno
import logging
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from pydantic import JsonValue, TypeAdapter, ValidationError

from training.run.checkpoint_files import (
    FORMAT,
    MANIFEST,
    MANIFEST_JSON,
    STATE,
    Part,
    damage,
    raise_unless_here,
    refuse_old_format,
)
from training.run.world import World
from voxmill.core.config import differences
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import atomic_folder, remove_folder, temporary_beside, uploads_of
from voxmill.core.sharded_tensors import (
    INDEX,
    index_text,
    rank_file,
)
from voxmill.core.storage import file_names, is_remote, upload

log = logging.getLogger("voxmill")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Failures after which a run goes on without the checkpoint: there may be room for the next one."""
State = TypeVar("State")


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

    A checkpoint saved among bad steps never replaces a sound one. All ranks make one together, and together call
    `save`, `wait`, `finish` and `latest`.

    Args:
        state_type: a dataclass; pydantic turns it into JSON and back.
        prefix: of the checkpoints' names, before eight digits or more.
        world: the ranks of the run; None: this process is the only one.
    """

    def __init__(
        self,
        folder: Path,
        state_type: type[State],
        *,
        keep: int,
        keep_best: int = 0,
        prefix: str = "step-",
        world: World | None = None,
    ) -> None:
        self.folder, self.keep, self.keep_best, self.prefix = folder, keep, keep_best, prefix
        self._json = TypeAdapter(Saved[state_type])  # type: ignore[valid-type]
        # Of the writer's thread, and of this one while nothing is being written.
        self._ranks = World(0, 1, torch.device("cpu")) if world is None else world.apart()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._unsaved: tuple[Path, OSError] | None = None
        """The newest checkpoint, where there was no room for it."""
        self._newest: Path | None = None

    def save(
        self,
        step: int,
        write: Callable[[Part], None],
        state: State,
        *,
        num_bytes: int = 0,
        score: float | None = None,
        is_sound: bool = True,
    ) -> Path:
        """Begins to write a checkpoint and returns its path; waits for the one before it first.

        Args:
            write: writes this rank's files, in another thread: its tensors may not change meanwhile.
            state: that of the first rank is saved.
            num_bytes: that this rank will write, about as many as any other; without so much room nothing is begun.
            score: validation loss, lower is better; None or not finite: never among the best.

        Raises:
            OSError: the one before it could not be written, and not for want of room.
        """
        self.wait()
        # In the checkpoint itself, so that the order of the best survives whatever ends the run.
        finite = score if score is not None and math.isfinite(score) else None
        text = self._json.dump_json(Saved(step=step, score=finite, is_sound=is_sound, state=state))
        self._newest = path = self.folder / f"{self.prefix}{step:08d}"
        self._pending = self._writer.submit(self._write, path, write, text, num_bytes)
        return path

    def wait(self) -> None:
        """Until the checkpoint that was begun is whole. Where there was no room for it, that is reported in the log.

        Raises:
            OSError: it could not be written, and not for want of room.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self._unsaved = None
        try:
            pending.result()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            assert self._newest is not None
            self._unsaved = self._newest, error
            if self._ranks.is_first:
                log.warning(
                    "%s: not saved (%s); training goes on, and saves again when the next checkpoint is due",
                    self._newest,
                    error.strerror,
                )

    def finish(self) -> None:
        """As `wait`, after the last step.

        Raises:
            JobError: there was no room for the last checkpoint. OSError: as `wait`.
        """
        self.wait()
        if self._unsaved is None:
            return
        path, error = self._unsaved
        left = self.latest()
        again = "start again" if left is None else f"run the same command again to resume from {left.name}"
        raise JobError(f"{path}: not saved ({error.strerror})", resume_hint=f"make room and {again}")

    def _write(self, final: Path, write: Callable[[Part], None], state: bytes, num_bytes: int) -> None:
        """In the writer's thread, on all ranks; an error of one is raised on all, after all have ended."""
        ranks = self._ranks
        with ExitStack() as stack:
            name = ranks.from_first(lambda: stack.enter_context(self._begun(final, num_bytes * ranks.size)))
            with self._place_of(name) as place:
                written = ranks.gathered(lambda: self._write_part(final, place, write))
                ranks.from_first(lambda: self._complete(final, place, written, state))
            ranks.from_first(stack.close)
        ranks.from_first(lambda: self._remove_old(final))

    @contextmanager
    def _begun(self, final: Path, num_bytes: int) -> Iterator[str]:
        """On the first rank: the name of a new folder, which becomes the checkpoint when the block ends well."""
        if is_remote(self.folder):
            (final / MANIFEST).unlink(missing_ok=True)  # first: what is half removed is no checkpoint
            remove_folder(final)
            try:
                yield temporary_beside(final).name
            except BaseException:
                remove_folder(final)
                raise
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # First, since there may be no room for another one beside what a killed run left.
        self._sweep(self.folder)
        if shutil.disk_usage(self.folder).free < num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(final))
        # One of that name is there where a run that rolled back reaches the step again, or where it is damaged.
        with atomic_folder(final, replace=True) as folder:
            yield folder.name

    @contextmanager
    def _place_of(self, name: str) -> Iterator[Path]:
        """Where this rank writes its files: in the folder of that name, or for object storage in one of its own."""
        if not is_remote(self.folder):
            yield self.folder / name
            return
        scratch = uploads_of(self.folder)
        # The ranks of this machine write at once, and none of them writes an older one any more.
        self._sweep(scratch, but=name)
        place = scratch / name / str(self._ranks.rank)
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(scratch / name, ignore_errors=True)

    def _sweep(self, folder: Path, *, but: str = "") -> None:
        for path in folder.glob(f".{self.prefix}*.tmp"):
            if path.name != but:
                shutil.rmtree(path, ignore_errors=True)

    def _write_part(self, final: Path, place: Path, write: Callable[[Part], None]) -> Part:
        part = Part(place, self._ranks.rank)
        write(part)
        self._send(final, part)
        return part

    def _complete(self, final: Path, place: Path, parts: Sequence[Part], state: bytes) -> None:
        """On the first rank, once all parts are whole: the indices, the state, and last the manifest."""
        own = Part(place, self._ranks.rank)
        for folder in dict.fromkeys(folder for part in parts for folder in part.extents):
            extents = {rank_file(part.rank): part.extents[folder] for part in parts}
            kinds = next(part.kinds[folder] for part in parts if part.kinds[folder])
            own.add_text(f"{folder}/{INDEX}".lstrip("/"), index_text(kinds, extents))
        own.add_text(STATE, state)
        self._send(final, own)
        files = {name: file for part in (*parts, own) for name, file in sorted(part.files.items())}
        manifest = Part(place, self._ranks.rank)
        manifest.add_text(MANIFEST, MANIFEST_JSON.dump_json(files, indent=1))
        self._send(final, manifest)

    def _send(self, final: Path, part: Part) -> None:
        """To object storage; elsewhere the files are where they belong."""
        for name in part.files if is_remote(final) else ():
            upload(part.folder / name, final / name)
            (part.folder / name).unlink()

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

        All ranks call it together, while none is being written, and share the work of checking it.

        Args:
            sound: prefer sound checkpoints: another one only where none is whole and sound.

        Raises:
            UserError: the newest is of an older version.
        """
        fallback, ranks = None, self._ranks
        for path in ranks.from_first(self.paths):
            found = ranks.gathered(lambda path=path: damage(path, rank=ranks.rank, world=ranks.size))  # type: ignore[misc]
            reason = next(filter(None, found), "")
            if reason:
                if ranks.is_first:
                    log.warning("%s: %s; skipped for the checkpoint before it", path, reason)
            elif sound and not self.read(path).is_sound:
                fallback = fallback or path
            else:
                return path
        return fallback

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
            raise_unless_here(path, error)
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
