"""DistillMOS (Stahl and Gamper 2025, arXiv:2502.05356): how good speech sounds, a second opinion beside DNSMOS.

A network of 4 M parameters, distilled from one on top of XLS-R that was trained on listeners' scores of degraded,
coded and synthetic speech; DNSMOS was trained on what noise suppressors made. The package `distillmos` has the network
and its weights.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotation.voice.audio_classifier import unusable
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.data.records import Label

RATE = 16000
WINDOW = 122880
"""Samples that the network sees at once, 7.68 s; a shorter clip is followed by silence, as its authors do."""
HALF_MINUTE = 30


class MosConfig(Config):
    """The second opinion on how good a clip sounds, by DistillMOS."""

    max_hops: int = 3
    """Evenly spaced places for each half minute at which a longer clip is measured; their mean is kept."""


class DistillMos:
    """Scores of clips on the scale of 1 to 5.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, config: MosConfig, device: str = "cpu"):
        import torch

        try:
            import distillmos
        except ImportError as error:
            raise UserError(
                f"voxmill annotate: the labeller mos wants the package distillmos ({error}); "
                "pip install voxmill[distillmos], or leave mos out of voice_attributes.labellers"
            ) from error
        self.config, self._device = config, device
        weights = Path(distillmos.__file__).parent / "weights" / "distill_mos_v7.pt"
        # It says on the screen which weights it has loaded.
        with contextlib.redirect_stdout(io.StringIO()):
            network: Any = distillmos.ConvTransformerSQAModel(load_weights=False, segmenting_in_forward=False)
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model"])
        self._network: Any = network.to(device).eval()

    def __call__(self, clips: Sequence[np.ndarray]) -> list[Label[float]]:
        """Scores of clips, float32 [samples] at 16 kHz in -1..1, in order, one at a time.

        Reasons of an abstention: `too_short`, `silent`.
        """
        return [self._label(clip) for clip in clips]

    def _label(self, clip: np.ndarray) -> Label[float]:
        import torch

        if reason := unusable(clip):
            return Label(reason=reason)
        padded = np.pad(clip, (0, max(WINDOW - len(clip), 0))).astype(np.float32)
        last = len(padded) - WINDOW
        num = min(-(-last // RATE) + 1, self.config.max_hops * max(-(-len(clip) // (HALF_MINUTE * RATE)), 1))
        scores = []
        for start in np.linspace(0, last, num).astype(int):
            window_BT = torch.from_numpy(padded[start : start + WINDOW])[None].to(self._device)
            with torch.inference_mode():
                scores.append(float(self._network(window_BT)))
        return Label(value=round(float(np.mean(scores)), 4))
