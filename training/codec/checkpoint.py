"""Layout of a codec checkpoint: the released layout, and beside it everything that a run resumes from.

    OUT/checkpoint-00001000/  config.json, audiovae.pth (averaged weights), README.md
                              training/autoencoder/, training/discriminators/: each rank's weights and Adam's moments
                              training/average.safetensors: the averaged weights
                              state.json, manifest.json (training/run/checkpoints.py)

Tensors are named by parameter, so any number of ranks reads them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from safetensors.torch import load, save_file
from torch import Tensor

from model.checkpoint import VAE_FILES
from model.config import VoxCPM2Config, write_config
from training.codec.config import VAETrainConfig
from training.run.checkpoint_files import Part
from training.run.checkpoints import Checkpoints
from training.run.world import World
from voxmill.core.hashing import fingerprint
from voxmill.core.sharded_tensors import Fragment, ShardedTensors
from voxmill.core.storage import read_whole
from voxmill.data.audio_sources import Clip

PREFIX = "checkpoint-"
CONFIG, AVERAGE = "config.json", "training/average.safetensors"


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


def checkpoints_in(out: Path, *, keep: int = 1, world: World | None = None) -> Checkpoints[CodecRunState]:
    """The checkpoints of a codec run."""
    return Checkpoints(out, CodecRunState, keep=keep, prefix=PREFIX, world=world)


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


def write_part(
    part: Part,
    step: int,
    *,
    config: VAETrainConfig,
    released: VoxCPM2Config,
    networks: Mapping[str, Sequence[Fragment]],
    average: Mapping[str, Tensor],
) -> None:
    """Writes a rank's files of a checkpoint.

    Args:
        networks: the rank's share of each network. average: averaged weights of AudioVAE, on the CPU; the first rank
            writes them.
    """
    for name, fragments in networks.items():
        part.add_tensors(fragments, f"training/{name}")
    if part.rank:
        return
    write_config(released, part.folder)
    torch.save({"state_dict": dict(average)}, part.folder / VAE_FILES[1])
    save_file(dict(average), part.folder / AVERAGE)
    for name in (CONFIG, VAE_FILES[1], AVERAGE):
        part.add_file(name)
    part.add_text("README.md", _card(step, config))


def read_network(folder: Path, name: str) -> ShardedTensors:
    """The tensors of a network."""
    return ShardedTensors(folder / "training" / name)


def read_average(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of AudioVAE."""
    return load(read_whole(folder / AVERAGE))


def _card(step: int, config: VAETrainConfig) -> str:
    settings = json.dumps(config.model_dump(mode="json", exclude={"run": True}), indent=1)
    return (
        f"# AudioVAE after {step} steps\n\n"
        f"Written by `voxmill train-vae`: `audiovae.pth` (weights averaged with {config.optimizer.ema}) and "
        "`config.json` in the released layout of VoxCPM2, without its language model. The run resumes from `training/` "
        f"and `state.json` and `manifest.json`; nothing else reads them.\n\nSettings:\n\n```json\n{settings}\n```\n"
    )
