"""Checkpoints of a run: whole or not there, each file's sha256 known, readable in any world and any ZeRO stage.

A checkpoint is fp32 weights and AdamW's two moments by parameter name in safetensors, and plain JSON: no pickle, no
file a rank. Rank 0 writes it in the background: attempt folder, fsync, manifest, rename. What is torn or altered is named
and passed over for the one before it.
"""

import hashlib
import json
import logging
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

from training.engine import MOMENTS

log = logging.getLogger("voxmill")
KINDS = ("weight", *MOMENTS)
MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints in `folder`; the last `keep` of them stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, step: int, tensors: dict[str, dict[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Begins to write a checkpoint and returns; the one before it is finished first.

        Raises:
            OSError: the one before it could not be written.
        """
        self.wait()
        text = json.dumps({"step": step, **state}, sort_keys=True)
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
        for kind in KINDS:
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
        for old in self._all()[self.keep :]:
            shutil.rmtree(old)
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path)

    def _all(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None. Damaged ones are named in the log."""
        for path in self._all():
            wrong = damage(path)
            if not wrong:
                return path
            log.warning("%s: %s; the checkpoint before it is used", path, wrong)
        return None


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


def read_tensors(path: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(name, {weight, exp_avg, exp_avg_sq}) of every parameter, read one by one."""
    with ExitStack() as stack:
        files = {kind: stack.enter_context(safe_open(path / f"{kind}.safetensors", framework="pt")) for kind in KINDS}
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
