"""The released VoxCPM2 code (PyPI `voxcpm`, not a dependency) as a peer: same configuration, same weights, same batch.

    pip install --no-deps voxcpm==2.0.3

Tests compare results with it, benchmarks compare time. It is built from the same configuration and filled from the
same model, so neither side reads a checkpoint.
"""

import contextlib
import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

import torch

from model.codec.audio_vae import AudioVAE
from model.config import VoxCPM2Config, released_values
from model.voxcpm2 import VoxCPM2
from voxmill.core.errors import UserError

TOKENIZER = Path(__file__).resolve().parent.parent / "tests" / "data" / "oracle" / "rel" / "ckpt"
"""Any tokenizer will do where a comparison hands in token ids."""


def is_installed() -> bool:
    """Whether the released code can be imported."""
    return importlib.util.find_spec("voxcpm") is not None


def released_model(
    config: VoxCPM2Config, weights: VoxCPM2, *, dtype: torch.dtype = torch.float32, tokenizer: Path = TOKENIZER
) -> Any:
    """The released `VoxCPM2Model` on the CPU in `dtype` with these weights and a fresh AudioVAE.

    Raises:
        UserError: the released code is not installed.
    """
    if not is_installed():
        raise UserError("the released code is missing; run: pip install --no-deps voxcpm==2.0.3")
    import transformers
    from voxcpm.model.voxcpm2 import VoxCPM2Model, VoxCPMConfig
    from voxcpm.modules.audiovae import AudioVAEConfigV2, AudioVAEV2

    values = released_values(config) | {"device": "cpu", "dtype": str(dtype).removeprefix("torch.")}
    with contextlib.redirect_stderr(io.StringIO()):  # it writes its device and dtype there
        peer = VoxCPM2Model(
            VoxCPMConfig.model_validate(values),
            transformers.LlamaTokenizerFast.from_pretrained(tokenizer),
            AudioVAEV2(config=AudioVAEConfigV2.model_validate(values["audio_vae_config"])),
        )
    peer.to(dtype).audio_vae.float()
    missing, extra = peer.load_state_dict(weights.state_dict(), strict=False)
    assert not extra and all(name.startswith("audio_vae.") for name in missing), (missing, extra)
    return peer.eval()


def released_vae(vae: AudioVAE) -> Any:
    """The released AudioVAE with the same configuration and weights, fp32 on the CPU.

    Raises:
        UserError: the released code is not installed.
    """
    if not is_installed():
        raise UserError("the released code is missing; run: pip install --no-deps voxcpm==2.0.3")
    import transformers  # noqa: F401  (before voxcpm: it must not meet a half-imported torchaudio)
    from voxcpm.modules.audiovae import AudioVAEConfigV2, AudioVAEV2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its weight norm is PyTorch's older one
        peer = AudioVAEV2(config=AudioVAEConfigV2.model_validate(vae.config.model_dump(mode="json")))
    peer.load_state_dict(vae.state_dict())
    return peer.eval()
