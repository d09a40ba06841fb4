"""Emotion of a clip, or that there is none to tell and why.

No emotion model is embedded: no package was found that carries one under a suitable licence. Without a model every
clip abstains, expressiveness rests on prosody, and claims of emotion stay unverified. Production names a model by hub
id or path (emotion2vec exported for transformers, wav2vec2-type classifiers), loaded by
`AutoModelForAudioClassification`. That path is tested with a small random model; no trained one has been run here.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from voxmill.core.config import Config
from voxmill.core.errors import UserError

RATE = 16000

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
    """Of a longer clip the middle this many seconds are used."""


@dataclass(frozen=True)
class Emotion:
    """One clip's emotion: `label` is None when the classifier abstains, `reason` then says why.

    `reason` is `no_model`, `too_short`, `silent`, `unsure` or `not_an_emotion`; empty with a label. `probabilities`
    are over our own names (`neutral`, `happy`, `sad`, `angry`, `fearful`, `disgusted`, `surprised`, `calm` or the
    model's own), empty without a model. `intensity` is 1 - P(neutral), None when the model has no neutral.
    """

    label: str | None
    probability: float | None
    reason: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    intensity: float | None = None

    @property
    def abstains(self) -> bool:
        """Whether nothing is said about this clip."""
        return self.label is None


class EmotionClassifier:
    """Emotion of clips; without a model it answers all the same, by abstaining.

    Raises:
        UserError: the model cannot be loaded or does not classify audio.
    """

    def __init__(self, config: EmotionConfig, device: str = "cpu"):
        self.config, self.device = config, device
        self._extract: Any = None
        self._model: Any = None
        self.names: list[str] = []
        if config.model is None:
            return
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        try:
            self._extract = AutoFeatureExtractor.from_pretrained(config.model)
            self._model = AutoModelForAudioClassification.from_pretrained(config.model).to(device).eval()
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"emotion.model={config.model}: transformers cannot load it as an audio classifier ({reason}); "
                "name another, or null to abstain"
            ) from error
        labels = self._model.config.id2label
        self.names = [emotion_name(str(labels[i])) for i in range(len(labels))]

    def __call__(self, clips: list[np.ndarray]) -> list[Emotion]:
        """Labels clips, float32 [samples] at 16 kHz in -1..1, in order; one clip at a time, so padding changes nothing."""
        if self._model is None:
            return [Emotion(None, None, "no_model")] * len(clips)
        return [self._label(clip) for clip in clips]

    def _label(self, clip: np.ndarray) -> Emotion:
        import torch

        if len(clip) < RATE // 2:
            return Emotion(None, None, "too_short")
        if float(np.abs(clip).max()) < 1e-4:
            return Emotion(None, None, "silent")
        length = round(self.config.max_seconds * RATE)
        start = max((len(clip) - length) // 2, 0)
        inputs = self._extract(clip[start : start + length], sampling_rate=RATE, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            scores = self._model(**inputs).logits[0].float().softmax(-1).cpu().numpy()
        return decide(self.names, scores, self.config)


def decide(names: list[str], scores: np.ndarray, config: EmotionConfig) -> Emotion:
    """The label of a probability vector [classes], or an abstention; classes of one name are added up."""
    probabilities: dict[str, float] = {}
    for name, score in zip(names, scores.tolist(), strict=True):
        probabilities[name] = probabilities.get(name, 0.0) + score
    ranked = sorted(probabilities, key=lambda name: -probabilities[name])
    best = probabilities[ranked[0]]
    margin = best - (probabilities[ranked[1]] if len(ranked) > 1 else 0.0)
    intensity = 1.0 - probabilities[NEUTRAL] if NEUTRAL in probabilities else None
    reason = ""
    if best < config.min_probability or margin < config.min_margin:
        reason = "unsure"
    elif ranked[0] in _NOT_EMOTIONS:
        reason = "not_an_emotion"
    return Emotion(None if reason else ranked[0], best, reason, probabilities, intensity)


def emotion_name(label: str) -> str:
    """Our name of a model's label (`ang`, `Angry`, `生气/angry`), or the label itself in lower case."""
    # emotion2vec's labels are Chinese and English with a slash between.
    plain = label.lower().rsplit("/", 1)[-1].strip()
    for prefix, name in _NAMES.items():
        if plain.startswith(prefix):
            return name
    return plain
