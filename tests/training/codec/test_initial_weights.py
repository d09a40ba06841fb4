"""New weights are a linear codec of the data: speech reaches the latents, and the latents give it back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.codec.audio_vae import AudioVAE
from samples.fabricate import make_folder
from tests.support.codec_corpus import SETTINGS
from training.codec.config import read_recipe
from training.codec.crops import Crops, CropSource
from training.codec.initial_weights import FIT_CROPS, fit_to_data
from training.codec.model import new_vae
from voxmill.data.audio_sources import find_clips


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CropSource:
    clips, _ = find_clips(make_folder(Path(tmp_path_factory.mktemp("corpus"))), min_seconds=0.32)
    return CropSource(clips, seconds=0.32, gain_db=6.0, seed=0, rate_in=16000, rate_out=48000)


def fitted(source: CropSource, *overrides: str) -> tuple[AudioVAE, AudioVAE]:
    """New weights as they are drawn, and fitted."""
    config = read_recipe(None, [*SETTINGS, *overrides])
    (_, raw), (_, vae) = new_vae(config.model, 0), new_vae(config.model, 0)
    before = torch.get_rng_state()
    fit_to_data(vae, source, 0)
    assert torch.equal(before, torch.get_rng_state())
    return raw, vae


def through(vae: AudioVAE, crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
    """(latents, audio) as training computes them: in one piece."""
    with torch.no_grad():
        latents_BDL = vae.encoder.fc_mu(vae.encoder.hidden(crops.input_BT[:, None]))
        return latents_BDL, vae.decoder(latents_BDL, crops.rate_B)[:, 0]


def test_speech_reaches_latents_and_audio(source: CropSource) -> None:
    raw, vae = fitted(source)
    crops = source.batch(0, FIT_CROPS)
    (poor_BDL, _), (latents_BDL, decoded_BT) = through(raw, crops), through(vae, crops)
    with torch.no_grad():
        free_BCT = vae.encoder.block[0](crops.input_BT[:, None])[:, 1:]  # the first channel is the audio itself
    assert free_BCT.mean(dim=(0, 2)).abs().max() < 1e-3
    assert free_BCT.std(dim=(0, 2)).numpy() == pytest.approx(1, abs=1e-3)
    spread_D = latents_BDL.std(dim=(0, 2))  # 1 over more crops than these
    assert spread_D.min() > 0.5 and spread_D.max() < 2
    assert poor_BDL.std(dim=(0, 2)).max() < 0.1
    # Four latents hold a part of it.
    assert 0.3 < float(decoded_BT.std() / crops.target_BT.std()) < 1.1


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(
            {"depthwise": False, "encoder_rates": [10, 8, 8], "decoder_rates": [8, 6, 40]}, marks=pytest.mark.slow
        ),
        pytest.param({"cond_type": "scale_bias_init", "use_noise_block": True}, marks=pytest.mark.slow),
        pytest.param({"cond_type": "add", "cond_out_layer": True}, marks=pytest.mark.slow),
        pytest.param({"cond_type": "concat", "cond_out_layer": True}, marks=pytest.mark.slow),
        pytest.param({"sr_bin_boundaries": None}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_low_frequencies_come_back(source: CropSource, shape: dict[str, Any]) -> None:
    config = {"encoder_dim": 16, "decoder_dim": 128, "latent_dim": 64} | shape
    _, vae = fitted(source, f"model.audio_vae={json.dumps(config)}")
    crops = source.batch(1000, FIT_CROPS)  # not those whose scale it has
    target_BT, decoded_BT = (low_passed(audio_BT) for audio_BT in (crops.target_BT, through(vae, crops)[1]))
    assert float((decoded_BT - target_BT).square().sum() / target_BT.square().sum()) < 0.25


def low_passed(audio_BT: torch.Tensor) -> torch.Tensor:
    """Below 300 Hz."""
    spectrum_BF = torch.fft.rfft(audio_BT)
    spectrum_BF[:, torch.fft.rfftfreq(audio_BT.shape[1], 1 / 48000) > 300] = 0
    low_BT: torch.Tensor = torch.fft.irfft(spectrum_BF, n=audio_BT.shape[1])
    return low_BT


@pytest.mark.slow
def test_every_rank_finds_the_same(source: CropSource) -> None:
    first, second = fitted(source)[1].state_dict(), fitted(source)[1].state_dict()
    assert all(torch.equal(values, second[name]) for name, values in first.items())


@pytest.mark.slow
def test_log_variance_stays(source: CropSource) -> None:
    raw, vae = fitted(source)
    assert torch.equal(raw.encoder.fc_logvar.weight_g, vae.encoder.fc_logvar.weight_g)
