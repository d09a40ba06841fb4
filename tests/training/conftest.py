"""A dataset with latents, made once: it is read by all tests of training."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from samples.fabricate import add_latents, rows, write_dataset
from training.run.world import World, join_world


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


@pytest.fixture(autouse=True)
def plain_linear() -> Iterator[None]:
    """ZeRO 3 puts a linear layer of its own into PyTorch for good, and tests of other folders share the process."""
    linear = torch.nn.functional.linear
    yield
    torch.nn.functional.linear = linear
