"""A dataset with latents, made once: it is read by all tests of training."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.checkpoint import load_vae
from model.config import read_config
from model.latent_space import latent_space
from pipelines.encode import EncodeConfig, read_clips, write_latents_index
from pipelines.encode_units import encode_unit, plan_units
from tests.training.small_dataset import CHECKPOINT, rows, write_dataset
from training.engine import World, join_world


def add_latents(folder: Path) -> Path:
    """What `voxmill encode` does, without Ray."""
    settings = read_config(CHECKPOINT)
    vae = load_vae(CHECKPOINT, settings)
    config = EncodeConfig(unit_seconds=10.0, progress=False)
    units = plan_units(read_clips(folder), latent_space(vae), settings.patch_size, config)
    for unit in units:
        encode_unit(unit, folder, vae, patch_size=settings.patch_size, batch_seconds=config.batch_seconds)
    write_latents_index(folder, units, vae, settings, config, encoded=len(units), wall_seconds=0.0)
    return folder


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 clips in English and French, of all modes."""
    return add_latents(write_dataset(tmp_path_factory.mktemp("dataset"), rows(clips_each=8)))


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """One rank. DeepSpeed remembers its process groups for good, so a process joins once."""
    with join_world() as found:
        os.environ.pop("MASTER_PORT", None)  # taken: runs that tests start must find one of their own
        yield found
