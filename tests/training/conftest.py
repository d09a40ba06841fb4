"""A dataset with latents, made once: it is read by all tests of training."""

from pathlib import Path

import pytest

from tests.training.small_dataset import add_latents, rows, write_dataset


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 clips in English and French, of all modes."""
    return add_latents(write_dataset(tmp_path_factory.mktemp("dataset"), rows(clips_each=8)))
