"""Voice separated from its background with demucs' own inference, only where there is a background.

Production names one of demucs' models (`htdemucs`); embedded is Spleeter's two-stem U-Net (MIT), which is not a
Demucs network but runs through `demucs.apply.apply_model` all the same.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxmill.config import Config
from voxmill.errors import UserError

RATE = 44100


class SeparationConfig(Config):
    """When to separate and with what."""

    mode: Literal["auto", "always", "never"] = "auto"
    model: str = "embedded"
    max_music_share: float = 0.2
    min_snr_db: float = 12.0
    min_gain_dnsmos_bak: float = 0.1
    max_loss_dnsmos_sig: float = 0.3


def wanted(config: SeparationConfig, music_share: float, snr_db: float) -> tuple[bool, str]:
    """Whether a recording goes through separation, and why in a few words."""
    if config.mode != "auto":
        return config.mode == "always", f"mode {config.mode}"
    if music_share >= config.max_music_share:
        return True, f"music under {music_share:.0%} of the speech"
    if snr_db < config.min_snr_db:
        return True, f"speech to background {snr_db:.0f} dB"
    return False, "clean"


class Separator:
    """The voice of a recording without its background.

    Args:
        model: `embedded`, the name of a demucs model, or `folder/name` of one on disk.
        weights: folder of the embedded weights (unused otherwise).
    """

    def __init__(self, model: str, weights: Path | None = None, device: str = "cpu"):
        self.device = device
        if model == "embedded":
            from annotation.spleeter import SpleeterVocals

            assert weights is not None
            self.model: Any = SpleeterVocals.load(weights)
        else:
            from demucs.pretrained import get_model

            folder = Path(model).parent if "/" in model else None
            try:
                self.model = get_model(Path(model).name, repo=folder)
            except Exception as error:
                raise UserError(f"separation.model={model}: demucs cannot load it ({error})") from error
        self.model.to(device).eval()

    def __call__(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """Returns the voice, float32 [samples] at `rate`, of mono audio float32 [samples] at `rate`."""
        import soxr
        import torch
        from demucs.apply import apply_model

        mono = audio if rate == RATE else soxr.resample(audio, rate, RATE)
        mix_BCT = torch.from_numpy(np.ascontiguousarray(mono, dtype=np.float32)).to(self.device).expand(1, 2, -1)
        # shifts=0: the random shift trick would break 'the same input gives the same bytes'.
        with torch.inference_mode():
            stems = apply_model(self.model, mix_BCT, shifts=0, split=True, overlap=0.1, device=self.device)
        sources: list[str] = list(self.model.sources)
        voice = stems[0, sources.index("vocals")].mean(0).cpu().numpy()
        voice = voice if rate == RATE else soxr.resample(voice, RATE, rate)
        voice = voice[: len(audio)]
        return np.pad(voice, (0, len(audio) - len(voice))).astype(np.float32)
