"""What gender, age and emotion share: an audio classifier of transformers by hub id or path, and clips it can label.

These paths are tested with small random models; no trained one has been run here.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_model

RATE = 16000
MIN_SAMPLES = RATE // 2
SILENT_PEAK = 1e-4


def unusable(clip: np.ndarray) -> Literal["", "too_short", "silent"]:
    """Why a voice cannot be classified from float32 [samples] at 16 kHz; "" where it can."""
    if len(clip) < MIN_SAMPLES:
        return "too_short"
    return "silent" if float(np.abs(clip).max()) < SILENT_PEAK else ""


def excerpts(clip: np.ndarray, max_seconds: float) -> list[np.ndarray]:
    """Parts of a clip at 16 kHz that stand for it: its middle `max_seconds`, or all of a shorter one.

    Of a clip more than three times as long, the middle of each third.
    """
    length = round(max_seconds * RATE)
    thirds = np.array_split(clip, 3 if len(clip) > 3 * length else 1)
    return [third[max((len(third) - length) // 2, 0) :][:length] for third in thirds]


def add_up(names: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    """Probabilities by name from scores [classes]; classes of one name are added up."""
    probabilities: dict[str, float] = {}
    for name, score in zip(names, scores.tolist(), strict=True):
        probabilities[name] = probabilities.get(name, 0.0) + score
    return probabilities


class AudioClassifier:
    """Probabilities of a model's classes, one clip at a time, so that padding changes nothing.

    Args:
        labeller: section of the configuration that names the model.
        otherwise: what the section can hold in place of a model.

    Raises:
        UserError: the model cannot be loaded or does not classify audio.
    """

    def __init__(self, labeller: str, model: str, device: str, otherwise: str):
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        self._device, place = device, local_model(model)
        try:
            extractors: Any = AutoFeatureExtractor
            self._extract = extractors.from_pretrained(place)
            self._model: Any = AutoModelForAudioClassification.from_pretrained(place).to(device).eval()
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{labeller}.model={model}: transformers cannot load it as an audio classifier ({reason}); "
                f"name another, or {otherwise}"
            ) from error
        labels = self._model.config.id2label
        self.labels = [str(labels[i]) for i in range(len(labels))]

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """Float32 [classes] that add up to 1, of float32 [samples] at 16 kHz in -1..1."""
        import torch

        inputs = self._extract(clip, sampling_rate=RATE, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            scores: np.ndarray = self._model(**inputs).logits[0].float().softmax(-1).cpu().numpy()
        return scores
