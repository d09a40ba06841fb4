"""Layout of a codec checkpoint: the released layout, and beside it everything that a run resumes from.

    OUT/checkpoint-00001000/  config.json, audiovae.pth (averaged weights), README.md
                              training/autoencoder/, training/discriminators/: weights and Adam's moments
                              training/average.safetensors: the averaged weights
                              state.json, manifest.json (training/run/checkpoints.py)

Tensors are whole and named by parameter, so any number of ranks reads them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoint import VAE_FILES
from model.config import VoxCPM2Config, write_config
from training.codec.config import VAETrainConfig
from training.run.checkpoints import Checkpoints, read_tensors, write_tensors
from training.run.zero_state import Kinds
from voxmill.core.hashing import fingerprint
from voxmill.data.audio_sources import Clip

PREFIX = "checkpoint-"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecRunState:
    """What a codec run resumes from, besides tensors."""

    optimizer_steps: dict[str, int]
    """Steps of each network's optimizer: `autoencoder`, `discriminators`."""
    num_skipped: int
    """Steps in a row without a finite loss, the last ones before it was saved."""
    corpus: str
    """`corpus_fingerprint` of the training clips."""
    settings: dict[str, JsonValue]
    """`fixed_settings` of the recipe."""
    run_id: str | None
    """MLflow's."""


def checkpoints_in(out: Path, *, keep: int = 1) -> Checkpoints[CodecRunState]:
    """The checkpoints of a codec run."""
    return Checkpoints(out, CodecRunState, keep=keep, prefix=PREFIX)


def corpus_fingerprint(clips: list[Clip]) -> str:
    """Identity of a corpus: the same clips in the same order."""
    return fingerprint([[clip.name, clip.recording, clip.sample_rate, clip.num_samples] for clip in clips])


def fixed_settings(config: VAETrainConfig) -> dict[str, JsonValue]:
    """Settings that a resumed run may not change, and learning rates: all but `run`, `engine` and `data.readers`."""
    # As a checkpoint gives them back, in which infinity is null.
    values: dict[str, JsonValue] = json.loads(
        config.model_dump_json(exclude={"run": True, "engine": True, "data": {"readers"}})
    )
    return values


def write_layout(
    folder: Path,
    step: int,
    *,
    config: VAETrainConfig,
    released: VoxCPM2Config,
    networks: Mapping[str, Mapping[str, Kinds]],
    average: Mapping[str, Tensor],
) -> None:
    """Writes the files of a checkpoint.

    Args:
        networks: tensors of each network by parameter and kind. average: averaged weights of AudioVAE, on the CPU.
    """
    write_config(released, folder)
    torch.save({"state_dict": dict(average)}, folder / VAE_FILES[1])
    for name, tensors in networks.items():
        write_tensors(folder / "training" / name, tensors)
    save_file(dict(average), folder / "training" / "average.safetensors")
    (folder / "README.md").write_text(_card(step, config), encoding="utf-8")


def read_network(folder: Path, name: str) -> Iterator[tuple[str, Kinds]]:
    """(parameter, tensors by kind) of a network, read one by one."""
    return read_tensors(folder / "training" / name)


def read_average(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of AudioVAE."""
    return load_file(folder / "training" / "average.safetensors")


def _card(step: int, config: VAETrainConfig) -> str:
    settings = json.dumps(config.model_dump(mode="json", exclude={"run": True}), indent=1)
    return (
        f"# AudioVAE after {step} steps\n\n"
        f"Written by `voxmill train-vae`: `audiovae.pth` (weights averaged with {config.optimizer.ema}) and "
        "`config.json` in the released layout of VoxCPM2, without its language model. The run resumes from `training/` "
        f"and `state.json` and `manifest.json`; nothing else reads them.\n\nSettings:\n\n```json\n{settings}\n```\n"
    )
