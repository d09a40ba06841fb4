"""Voice separated from its background with demucs' own inference, only where there is a background.

Production names one of demucs' models (`htdemucs`); embedded is Spleeter's two-stem U-Net (MIT), which is not a
Demucs network but runs through `demucs.apply.apply_model` all the same.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxmill.core.audio import resample
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_model
from voxmill.data.records import Events, Separation

RATE = 44100
# A model's stems of ten minutes would take half a gigabyte; of these, a tenth.
PIECE_SECONDS, FADE_SECONDS = 131, 1


class SeparationConfig(Config):
    """When to separate and with what."""

    mode: Literal["auto", "always", "never"] = "auto"
    """`auto` separates where music or noise asks for it and it helps; `always` every recording, `never` none."""
    model: str = "embedded"
    """`embedded` (Spleeter), or the name of a Demucs model."""
    max_music_share: float = 0.2
    """`auto`: a recording with a larger share of music (0..1) is separated."""
    min_snr_db: float = 12.0
    """`auto`: a recording with a lower signal-to-noise ratio, in dB, is separated."""
    min_gain_dnsmos_bak: float = 0.1
    """The separated voice is kept only if DNSMOS BAK rises by this much (scale 1..5)."""
    max_loss_dnsmos_sig: float = 0.3
    """The separated voice is dropped if DNSMOS SIG falls by more than this (scale 1..5)."""


def plan_separation(config: SeparationConfig, events: Events) -> Separation:
    """Whether a recording goes through separation, and why in a few words."""
    if config.mode != "auto":
        return Separation(wanted=config.mode == "always", why=f"mode {config.mode}")
    if events.music_share >= config.max_music_share:
        return Separation(wanted=True, why=f"music under {events.music_share:.0%} of the speech")
    if events.snr_db < config.min_snr_db:
        return Separation(wanted=True, why=f"speech to background {events.snr_db:.0f} dB")
    return Separation(wanted=False, why="clean")


class Separator:
    """The voice of a recording without its background.

    Args:
        model: `embedded`, the name of a demucs model, or `folder/name` of one in a folder, which may be a URI.
        weights: folder of the embedded weights (unused otherwise).
    """

    def __init__(self, model: str, weights: Path | None = None, device: str = "cpu"):
        self.device = device
        if model == "embedded":
            from annotation.audio.spleeter import SpleeterVocals

            assert weights is not None
            self.model: Any = SpleeterVocals.load(weights)
        else:
            from demucs.pretrained import get_model

            folder, _, name = model.rpartition("/")
            repo = Path(local_model(folder)) if folder else None
            try:
                self.model = get_model(name, repo=repo)
            except Exception as error:
                raise UserError(f"separation.model={model}: demucs cannot load it ({error})") from error
        self.model.to(device).eval()

    def __call__(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """Returns the voice, float32 [samples] at `rate`, of mono audio float32 [samples] at `rate`."""
        import torch
        from demucs.apply import apply_model

        mono = resample(audio, rate, RATE)
        voice = np.zeros(len(mono), dtype=np.float32)
        fade = np.linspace(0, 1, FADE_SECONDS * RATE, dtype=np.float32)
        vocals = list(self.model.sources).index("vocals")
        for start, end in _pieces(len(mono)):
            piece = np.ascontiguousarray(mono[start:end], dtype=np.float32)
            mix_BCT = torch.from_numpy(piece).to(self.device).expand(1, 2, -1)
            # shifts=0: the random shift trick would break 'the same input gives the same bytes'.
            with torch.inference_mode():
                stems_BSCT = apply_model(self.model, mix_BCT, shifts=0, split=True, overlap=0.1, device=self.device)
            stem = stems_BSCT[0, vocals].mean(0).cpu().numpy()
            if start:
                stem[: len(fade)] *= fade
                voice[start : start + len(fade)] *= 1 - fade
            voice[start:end] += stem
        del mono
        voice = resample(voice, RATE, rate)[: len(audio)]
        if len(voice) < len(audio):
            voice = np.pad(voice, (0, len(audio) - len(voice)))
        return voice.astype(np.float32, copy=False)


def _pieces(num_samples: int) -> list[tuple[int, int]]:
    """Ranges of `PIECE_SECONDS` at `RATE`, each begun `FADE_SECONDS` before the end of the one before it."""
    size, step = PIECE_SECONDS * RATE, (PIECE_SECONDS - FADE_SECONDS) * RATE
    starts = range(0, max(num_samples - FADE_SECONDS * RATE, 1), step)
    return [(start, min(start + size, num_samples)) for start in starts]
