"""Emotion of a clip, or an abstention and its reason.

No emotion model is embedded: no package carries one under a suitable licence. Without a model every clip abstains,
expressiveness rests on prosody, and claims of emotion stay unverified. Production names a model by hub id or path:
emotion2vec+ as FunASR has it (`emotion2vec.py`), or an audio classifier of transformers.
"""

import numpy as np

from annotation.voice.audio_classifier import (
    AudioModel,
    ClassWords,
    add_up,
    excerpts,
    load_audio_model,
    named_classes,
    unusable,
)
from voxmill.core.config import Config
from voxmill.data.records import Emotion, Label

NEUTRAL = "neutral"

# What models and corpora call the same state, in lower case.
_NAMES: dict[str, tuple[str, ...]] = {
    NEUTRAL: ("neu", "neutral", "neutrality"),
    "calm": ("calm", "calmness"),
    "happy": ("hap", "happy", "happiness", "joy", "joyful", "exc", "excited", "excitement"),
    "sad": ("sad", "sadness"),
    "angry": ("ang", "angry", "anger"),
    "fearful": ("fea", "fear", "fearful"),
    "disgusted": ("dis", "disgust", "disgusted"),
    "surprised": ("sur", "surprise", "surprised", "ps", "pleasant surprise", "pleasant_surprise"),
    "other": ("oth", "other", "others"),
    "unknown": ("unk", "unknown", "<unk>"),
}
EMOTIONS = tuple(_NAMES)
_BY_LABEL = {label: name for name, labels in _NAMES.items() for label in labels}
_NOT_EMOTIONS = frozenset({"other", "unknown"})


class EmotionConfig(Config):
    """`model`: null, or a hub id or path. An answer needs this probability and this lead over the second best."""

    model: str | None = None
    """Path or hub id of emotion2vec+ (FunASR's format) or of an audio classifier; null labels no emotion."""
    labels: ClassWords = {}
    """What the model's classes are, by label or number, where their labels do not say so: {LABEL_0: angry, ...}."""
    min_probability: float = 0.5
    """The label abstains below this probability (0..1)."""
    min_margin: float = 0.15
    """The label abstains if the second best class is closer than this (0..1)."""
    max_seconds: float = 20.0
    """Of a longer clip the middle this many seconds are used, of one three times as long those of its thirds."""


class EmotionClassifier:
    """Emotion of clips; without a model it abstains from all of them.

    Raises:
        UserError: the model cannot be loaded, does not classify audio, or has a class that is no known emotion.
    """

    def __init__(self, config: EmotionConfig, device: str = "cpu"):
        self.config = config
        self._classify: AudioModel | None = None
        self.names: list[str] = []
        if config.model is not None:
            self._classify = load_audio_model("emotion", config.model, device, "null to abstain")
            labels = self._classify.labels
            self.names = named_classes("emotion", config.model, labels, config.labels, known_emotion, EMOTIONS)

    def __call__(self, clips: list[np.ndarray]) -> list[Label[Emotion]]:
        """Labels clips, float32 [samples] at 16 kHz in -1..1, in order, one at a time.

        Reasons of an abstention: `no_model`, `too_short`, `silent`, `unsure`, `not_an_emotion`.
        """
        return [self._label(clip) for clip in clips]

    def _label(self, clip: np.ndarray) -> Label[Emotion]:
        if self._classify is None:
            return Label(reason="no_model")
        if reason := unusable(clip):
            return Label(reason=reason)
        scores = [self._classify(part) for part in excerpts(clip, self.config.max_seconds)]
        return decide(self.names, np.mean(scores, axis=0), self.config)


def decide(names: list[str], scores: np.ndarray, config: EmotionConfig) -> Label[Emotion]:
    """The answer of a probability vector [classes], or an abstention; classes of one name are added up."""
    probabilities = add_up(names, scores)
    ranked = sorted(probabilities, key=lambda name: -probabilities[name])
    best = probabilities[ranked[0]]
    margin = best - (probabilities[ranked[1]] if len(ranked) > 1 else 0.0)
    intensity = 1.0 - probabilities[NEUTRAL] if NEUTRAL in probabilities else None
    emotion = Emotion(label=ranked[0], probability=best, probabilities=probabilities, intensity=intensity)
    if best < config.min_probability or margin < config.min_margin:
        return Label(reason="unsure", withheld=emotion)
    if ranked[0] in _NOT_EMOTIONS:
        return Label(reason="not_an_emotion", withheld=emotion)
    return Label(value=emotion)


def emotion_name(label: str) -> str:
    """The house's name of a label (`ang`, `Angry`, `生气/angry`), or the label itself in lower case."""
    return known_emotion(label) or _plain(label)


def known_emotion(label: str) -> str | None:
    """The house's name of a label, by all of it or by its first word; None for another state."""
    plain = _plain(label)
    return _BY_LABEL.get(plain) or _BY_LABEL.get((plain.split() or [""])[0])


def _plain(label: str) -> str:
    # emotion2vec's labels are Chinese and English with a slash between.
    return label.lower().rsplit("/", 1)[-1].strip()
