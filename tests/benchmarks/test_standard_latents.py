"""The rescaled AudioVAE is the same codec."""

import pytest
import torch

from benchmarks.support.standard_latents import standardised
from model.codec.audio_vae import AudioVAE
from model.config import AudioVAEConfig


@pytest.mark.parametrize("depthwise", [True, False])
@torch.no_grad()
def test_latents_become_standard_and_the_sound_stays(depthwise: bool) -> None:
    torch.manual_seed(0)
    vae = AudioVAE(AudioVAEConfig(encoder_dim=4, latent_dim=8, decoder_dim=64, depthwise=depthwise)).freeze()
    audio_BT = torch.randn(1, 640 * 40) * 0.1
    before_BDL = vae.encode(audio_BT)
    scaled = standardised(vae, before_BDL[0].T)
    after_BDL = scaled.encode(audio_BT)
    torch.testing.assert_close(after_BDL.mean(-1), torch.zeros(1, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(after_BDL.std(-1), torch.ones(1, 8), atol=1e-3, rtol=0)
    assert before_BDL.std(-1).max() < 0.5, "there was nothing to rescale"
    # One sound, once the decoder's layers have forgotten what came before the first frame.
    old_BT, new_BT = (
        made.decode(latents)[..., 20 * 1920 :] for made, latents in ((vae, before_BDL), (scaled, after_BDL))
    )
    torch.testing.assert_close(new_BT, old_BT, atol=1e-5, rtol=1e-3)
