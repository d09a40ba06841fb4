"""The oracle's small model, for the tests of what it says."""

import pytest

from model.codec.audio_vae import AudioVAE
from model.generation.generator import Generator
from model.sequence.text_tokenizer import TextTokenizer
from model.voxcpm2 import VoxCPM2
from tests.support.oracle import Oracle, read_oracle


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return read_oracle()


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> VoxCPM2:
    return oracle.core()


@pytest.fixture(scope="module")
def vae(oracle: Oracle) -> AudioVAE:
    vae = AudioVAE(oracle.config.audio_vae_config)
    vae.load_state_dict(oracle.vae_weights)
    return vae.freeze()


@pytest.fixture(scope="module")
def generator(oracle: Oracle, model: VoxCPM2, vae: AudioVAE) -> Generator:
    return Generator(model, vae, TextTokenizer.from_folder(oracle.checkpoint))
