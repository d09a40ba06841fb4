"""CV3-Eval's emotion score: does a classifier hear the reference's emotion in the speech? (arXiv:2505.17589)

The official script asks emotion2vec+ large for the likeliest of its nine classes, without a threshold, and counts how
often that is the emotion in the utterance's id, over all and by the id's level (high, low). Here any audio classifier of
transformers is asked, which a user names; without one nothing is scored, and the report says so.
"""

from typing import Any

import numpy as np

from annotation.voice.emotion import EmotionClassifier, EmotionConfig
from evaluation.metrics.similarity import weights_digest
from evaluation.metrics.speech_recognition import ModelName
from voxmill.core.config import Config

NO_MODEL = "none given, emotions are not scored (scoring.emotion.model)"


class EmotionScoringConfig(Config):
    """`model`: null, or a hub id or path of an audio classifier; of a longer clip the middle `max_seconds` are heard."""

    model: str | None = None
    """Path or hub id of an audio classifier; null scores no emotion."""
    max_seconds: float = 20.0
    """Of a longer clip the middle this many seconds are used."""


def classifier_name(config: EmotionScoringConfig) -> ModelName:
    """Which classifier a configuration names; loads nothing."""
    if config.model is None:
        return ModelName(NO_MODEL, "")
    return ModelName(config.model, f"emotion:{weights_digest(config.model)}:{config.max_seconds}:1")


class EmotionHearer:
    """The likeliest emotion of clips.

    Raises:
        UserError: the model cannot be loaded or does not classify audio.
    """

    def __init__(self, config: EmotionScoringConfig, device: str = "cpu"):
        self._classify = EmotionClassifier(EmotionConfig(model=config.model, max_seconds=config.max_seconds), device)

    def __call__(self, samples: np.ndarray) -> dict[str, Any]:
        """`heard` and its `probability` for float32 [T] at 16 kHz; None for both where a clip is too short to hear."""
        emotion = self._classify([samples])[0].measured
        if emotion is None:
            return {"heard": None, "probability": None}
        # As the official script: the likeliest class, however unsure and whatever it is called.
        return {"heard": emotion.label, "probability": emotion.probability}
