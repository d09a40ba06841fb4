"""Checkpoints of a run: whole or not there, each file's sha256 known, readable in any world and any ZeRO stage.

A checkpoint is fp32 weights, AdamW's two moments and, where there is one, the average of the weights by parameter name in
safetensors, and plain JSON: no pickle, no file a rank. It holds what is trained alone. Rank 0 writes it in the
background: attempt folder, fsync, manifest, rename. What is torn or altered is named and passed over for the one before it.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

log = logging.getLogger("voxmill")
MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints in `folder`; the last `keep` of them stay, and the `keep_best` of the lowest score."""

    def __init__(self, folder: Path, keep: int, keep_best: int = 0) -> None:
        self.folder, self.keep, self.keep_best = folder, keep, keep_best
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(
        self, step: int, tensors: dict[str, dict[str, Tensor]], state: Mapping[str, Any], *, score: float | None = None
    ) -> None:
        """Begins to write a checkpoint and returns; the one before it is finished first.

        Args:
            tensors: by parameter and kind (weight, exp_avg, ...); every parameter has the same kinds.
            score: validation loss, lower is better; None or not finite: never among the best.

        Raises:
            OSError: the one before it could not be written.
        """
        self.wait()
        # In the checkpoint itself, so that the order of the best survives whatever ends the run.
        scored = {"score": score} if score is not None and math.isfinite(score) else {}
        text = json.dumps({"step": step, **scored, **state}, sort_keys=True)
        self._pending = self._writer.submit(self._write, step, tensors, text)

    def wait(self) -> None:
        """Until what was begun lies there whole. Raises OSError where it could not be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, step: int, tensors: dict[str, dict[str, Tensor]], state: str) -> None:
        final = self.folder / f"step-{step:08d}"
        attempt = self.folder / f".{final.name}.{uuid.uuid4().hex[:8]}"
        attempt.mkdir(parents=True)
        for kind in next(iter(tensors.values()), {}):
            save_file(
                {name: values[kind].contiguous() for name, values in tensors.items()}, attempt / f"{kind}.safetensors"
            )
        (attempt / "state.json").write_text(state)
        manifest = {path.name: sha256(path) for path in sorted(attempt.iterdir())}
        (attempt / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in [*attempt.iterdir(), attempt]:
            _sync(path)
        if final.exists():  # a run that went back passes the same step again, or the old one is damaged
            shutil.rmtree(final)
        attempt.rename(final)
        _sync(self.folder)
        best = self.best()
        for old in self._all()[self.keep :]:
            if old not in best:
                shutil.rmtree(old)
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path)

    def _all(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def best(self) -> list[Path]:
        """At most `keep_best` checkpoints of the lowest score, best first; of equal ones the newer."""
        scored = [(score, path) for path in self._all() if (score := _score(path)) is not None]
        return [path for _, path in sorted(scored, key=lambda pair: pair[0])[: self.keep_best]]

    def latest(self, *, sound: bool = False) -> Path | None:
        """The newest whole checkpoint, or None. Damaged ones are named in the log.

        Args:
            sound: none that was saved amid bad steps (`bad_steps` of its state), if there is another.
        """
        found = None
        for path in self._all():
            wrong = damage(path)
            if wrong:
                log.warning("%s: %s; the checkpoint before it is used", path, wrong)
            elif sound and read_state(path).get("bad_steps"):
                found = found or path
            else:
                return path
        return found


def damage(path: Path) -> str:
    """What is wrong with a checkpoint, or ''."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        for name, wanted in manifest.items():
            if sha256(path / name) != wanted:
                return f"{name} was altered or cut off"
        return ""
    except (OSError, ValueError) as error:
        return f"not whole ({error})"


def read_state(path: Path) -> dict[str, Any]:
    """What `save` was given as `state`, and `step`."""
    values: dict[str, Any] = json.loads((path / "state.json").read_bytes())
    return values


def _score(path: Path) -> float | None:
    """Of a checkpoint; None where it has none, or is damaged, which is named where it would be used."""
    try:
        return read_state(path).get("score")
    except (OSError, ValueError) as error:
        log.warning("%s: has no score that can be read (%s)", path, error)
        return None


def read_tensors(path: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(name, {weight, exp_avg, exp_avg_sq, ...}) of every parameter, as `save` was given them, read one by one."""
    with ExitStack() as stack:
        paths = sorted(path.glob("*.safetensors"))
        files = {file.stem: stack.enter_context(safe_open(file, framework="pt")) for file in paths}
        for name in files["weight"].keys():  # noqa: SIM118 (no mapping)
            yield name, {kind: file.get_tensor(name) for kind, file in files.items()}


def sha256(path: Path) -> str:
    """Of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
