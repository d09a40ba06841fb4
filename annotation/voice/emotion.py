"""Emotion of a clip, or an abstention and its reason.

No emotion model is embedded: no package carries one under a suitable licence. Without a model every
clip abstains, expressiveness rests on prosody, and claims of emotion stay unverified. Production names a model by hub
id or path (emotion2vec exported for transformers, wav2vec2-type classifiers), loaded by
`AutoModelForAudioClassification`.
"""

import numpy as np

from annotation.voice.audio_classifier import AudioClassifier, add_up, excerpts, unusable
from voxmill.core.config import Config
from voxmill.data.records import Emotion, Label

NEUTRAL = "neutral"

# What models call the same state, by the first letters of their lower-case label; the first that fits counts.
_NAMES: dict[str, str] = {
    "neu": NEUTRAL,
    "calm": "calm",
    "hap": "happy",
    "joy": "happy",
    "exc": "happy",
    "sad": "sad",
    "ang": "angry",
    "fea": "fearful",
    "dis": "disgusted",
    "sur": "surprised",
    "oth": "other",
    "unk": "unknown",
    "<unk>": "unknown",
}
_NOT_EMOTIONS = frozenset({"other", "unknown"})


class EmotionConfig(Config):
    """`model`: null, or a hub id or path. An answer needs this probability and this lead over the second best."""

    model: str | None = None
    """Path or hub id of an audio classifier; null labels no emotion."""
    min_probability: float = 0.5
    """The label abstains below this probability (0..1)."""
    min_margin: float = 0.15
    """The label abstains if the second best class is closer than this (0..1)."""
    max_seconds: float = 20.0
    """Of a longer clip the middle this many seconds are used, of one three times as long those of its thirds."""


class EmotionClassifier:
    """Emotion of clips; without a model it abstains from all of them.

    Raises:
        UserError: the model cannot be loaded or does not classify audio.
    """

    def __init__(self, config: EmotionConfig, device: str = "cpu"):
        self.config = config
        self._classify: AudioClassifier | None = None
        self.names: list[str] = []
        if config.model is not None:
            self._classify = AudioClassifier("emotion", config.model, device, "null to abstain")
            self.names = [emotion_name(label) for label in self._classify.labels]

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
    """The house's name of a model's label (`ang`, `Angry`, `生气/angry`), or the label itself in lower case."""
    # emotion2vec's labels are Chinese and English with a slash between.
    plain = label.lower().rsplit("/", 1)[-1].strip()
    for prefix, name in _NAMES.items():
        if plain.startswith(prefix):
            return name
    return plain
