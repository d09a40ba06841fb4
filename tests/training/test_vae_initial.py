"""New weights are scaled to the data: speech reaches the latents, and the latents reach the audio."""

from pathlib import Path

import pytest
import torch

from model.audio_vae import AudioVAE
from tests.training.corpus import SETTINGS, make_folder
from training.audio_crops import CropSource
from training.train_vae import read_recipe
from training.vae_initial import FIT_CROPS, fit_to_data
from training.vae_model import new_vae
from voxmill.clip_audio import find_clips


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


def test_speech_reaches_latents_and_audio(source: CropSource) -> None:
    raw, vae = fitted(source)
    crops = source.batch(0, FIT_CROPS)
    with torch.no_grad():
        # As training computes it: in one piece.
        latents_BDL = vae.encoder.fc_mu(vae.encoder.hidden(crops.heard_BT[:, None]))
        poor_BDL = raw.encoder.fc_mu(raw.encoder.hidden(crops.heard_BT[:, None]))
        made_BT = vae.decoder(latents_BDL, crops.rate_B)[:, 0]
    assert latents_BDL.mean(dim=(0, 2)).abs().max() < 1e-3
    assert latents_BDL.std(dim=(0, 2)).numpy() == pytest.approx(1, abs=1e-3)
    assert poor_BDL.std(dim=(0, 2)).max() < 0.1
    # tanh makes loud samples a little smaller.
    assert float(made_BT.std() / crops.aim_BT.std()) == pytest.approx(1, abs=0.1)


def test_every_rank_finds_the_same(source: CropSource) -> None:
    first, second = fitted(source)[1].state_dict(), fitted(source)[1].state_dict()
    assert all(torch.equal(values, second[name]) for name, values in first.items())


def test_log_variance_stays(source: CropSource) -> None:
    raw, vae = fitted(source)
    assert torch.equal(raw.encoder.fc_logvar.weight_g, vae.encoder.fc_logvar.weight_g)
