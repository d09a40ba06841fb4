"""CV3-Eval's emotion score: does a classifier recognise the reference's emotion in the speech? (arXiv:2505.17589)

The official script takes the likeliest of emotion2vec+ large's nine classes, without a threshold, and counts how often
that is the emotion in the utterance's id, over all and by the id's level (high, low). Here the user names
emotion2vec+ or any audio classifier of transformers; without one nothing is scored, and the report states it.
"""

from annotation.voice.audio_classifier import ClassWords
from annotation.voice.emotion import EmotionClassifier, EmotionConfig
from evaluation.metrics.measurement import RecognisedEmotion
from evaluation.metrics.similarity import weights_digest
from evaluation.metrics.speech_recognition import ModelName
from voxmill.core.audio import Samples
from voxmill.core.config import Config

NO_MODEL = "none given, emotions are not scored (scoring.emotion.model)"


class EmotionScoringConfig(Config):
    """The audio classifier that recognises emotions where a benchmark names them."""

    model: str | None = None
    """Path or hub id of emotion2vec+ (FunASR's format) or of an audio classifier; null scores no emotion."""
    labels: ClassWords = {}
    """What the model's classes are, by label or number, where their labels do not say so: {LABEL_0: angry, ...}."""
    max_seconds: float = 20.0
    """Of a longer clip the middle this many seconds are used."""


def classifier_name(config: EmotionScoringConfig) -> ModelName:
    """Which classifier a configuration names; loads nothing."""
    if config.model is None:
        return ModelName(NO_MODEL, "")
    mapped = "".join(f":{label}={word}" for label, word in sorted(config.labels.items()))
    return ModelName(config.model, f"emotion:{weights_digest(config.model)}:{config.max_seconds}:1{mapped}")


class EmotionScorer:
    """The likeliest emotion of clips.

    Raises:
        UserError: the model cannot be loaded or does not classify audio.
    """

    def __init__(self, config: EmotionScoringConfig, device: str = "cpu"):
        asked = EmotionConfig(model=config.model, labels=config.labels, max_seconds=config.max_seconds)
        self._classify = EmotionClassifier(asked, device)

    def __call__(self, samples_T: Samples) -> RecognisedEmotion:
        """The likeliest emotion of float32 [T] at 16 kHz."""
        emotion = self._classify([samples_T])[0].measured
        if emotion is None:
            return RecognisedEmotion(heard=None, probability=None)
        # As the official script: the likeliest class, however unsure and whatever it is called.
        return RecognisedEmotion(heard=emotion.label, probability=emotion.probability)
