"""All that a run of AudioVAE's training is made of, on disk: a checkpoint in the released layout that also resumes.

    OUT/checkpoint-00001000/  config.json, audiovae.pth (averaged weights), README.md
                              training/ autoencoder.safetensors, discriminators.safetensors, average.safetensors, state.json

It appears whole, by a rename, or not at all. Tensors are whole and named by parameter, so any number of ranks reads them.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import VAE_FILES
from model.codec.audio_vae import AudioVAE
from model.config import VoxCPM2Config, write_config
from training.codec.config import VAETrainConfig
from voxmill.core.config import differences
from voxmill.core.errors import UserError
from voxmill.core.hashing import fingerprint
from voxmill.data.audio_sources import Clip

PREFIX = "checkpoint-"
_NAME = re.compile(rf"{PREFIX}(\d{{8,}})")


class Average:
    """Exponential moving average of weights, fp32. It forgets fast at first, so that it is of use from the beginning."""

    def __init__(self, vae: AudioVAE, keep: float) -> None:
        self.keep = keep
        self.tensors = {name: value.detach().clone() for name, value in vae.state_dict().items()}

    @torch.no_grad()
    def update(self, vae: AudioVAE, step: int) -> None:
        """After step `step` (from 1): what is kept rises to `keep`."""
        keep = min(self.keep, (1 + step) / (10 + step))
        for name, value in vae.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value.detach(), 1 - keep)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from another's `tensors`."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)


@dataclass(frozen=True)
class Saved:
    """A checkpoint to resume from. `sides`: state of each engine by its name; `steps`: of each, and of the run."""

    folder: Path
    step: int
    steps: dict[str, int]
    sides: dict[str, dict[str, Tensor]]
    average: dict[str, Tensor]
    run_id: str | None


def data_fingerprint(clips: list[Clip]) -> str:
    """Identity of a corpus: the same clips in the same order."""
    return fingerprint([[clip.name, clip.recording, clip.sample_rate, clip.num_samples] for clip in clips])


def learnt_from(config: VAETrainConfig) -> dict[str, Any]:
    """What the weights depend on: everything but `run`, which may change when a run goes on."""
    values = config.model_dump(mode="json", exclude={"run"})
    values["data"].pop("readers")
    return values


def save(
    out: Path,
    step: int,
    *,
    config: VAETrainConfig,
    whole: VoxCPM2Config,
    sides: Mapping[str, tuple[dict[str, Tensor], int]],
    average: Average,
    corpus: str,
    run_id: str | None,
) -> Path:
    """Writes a checkpoint and removes those beyond `run.keep`; called on one rank.

    Args:
        sides: state and steps of each engine by its name.
        corpus: `data_fingerprint` of what was trained on.
    """
    from safetensors.torch import save_file

    folder = out / f"{PREFIX}{step:08d}"
    if folder.exists():
        return folder
    out.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=out))
    try:
        training = partial / "training"
        training.mkdir()
        write_config(whole, partial)
        averaged = {name: value.detach().cpu().contiguous() for name, value in average.tensors.items()}
        torch.save({"state_dict": averaged}, partial / VAE_FILES[1])
        save_file(averaged, training / "average.safetensors")
        for name, (tensors, _) in sides.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, training / f"{name}.safetensors")
        state = {
            "step": step,
            "steps": {name: steps for name, (_, steps) in sides.items()},
            "run_id": run_id,
            "corpus": corpus,
            "config": learnt_from(config),
        }
        (training / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        (partial / "README.md").write_text(_card(step, config), encoding="utf-8")
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors lets nobody else read
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        partial.chmod(0o755)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in checkpoints(out)[: -config.run.keep]:
        shutil.rmtree(old)
    return folder


def _card(step: int, config: VAETrainConfig) -> str:
    return (
        f"# AudioVAE after {step} steps\n\n"
        f"Written by `voxmill train-vae`: `audiovae.pth` (weights averaged with {config.optimizer.ema}) and "
        f"`config.json` in the released layout of VoxCPM2, without its language model. `training/` is what the run goes on from; "
        f"nothing else reads it.\n\nSettings:\n\n```json\n{json.dumps(learnt_from(config), indent=1)}\n```\n"
    )


def checkpoints(out: Path) -> list[Path]:
    """Checkpoints in `out`, oldest first."""
    found = out.glob(f"{PREFIX}*") if out.is_dir() else ()
    return sorted(
        (path for path in found if _NAME.fullmatch(path.name)), key=lambda path: int(path.name[len(PREFIX) :])
    )


def load_latest(out: Path, config: VAETrainConfig, corpus: str) -> Saved | None:
    """The newest checkpoint of `out`; None where there is none.

    Raises:
        UserError: it is of other settings or another corpus, or damaged; says what differs.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = checkpoints(out)
    if not found:
        return None
    training = found[-1] / "training"
    try:
        state = json.loads((training / "state.json").read_text(encoding="utf-8"))
        changed = differences(state["config"], learnt_from(config))
        if changed:
            raise UserError(f"{out}: was begun with other settings ({'; '.join(changed[:3])}); name a new OUT")
        if state["corpus"] != corpus:
            raise UserError(f"{out}: was begun with other clips than those there now; name a new OUT")
        sides = {name: load_file(training / f"{name}.safetensors") for name in state["steps"]}
        average = load_file(training / "average.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{found[-1]}: damaged ({error}); remove it to go on from the one before") from None
    return Saved(found[-1], state["step"], state["steps"], sides, average, state["run_id"])


def weights(side: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters by name in an engine's saved state."""
    return {name.removeprefix("weight."): value for name, value in side.items() if name.startswith("weight.")}
