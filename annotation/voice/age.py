"""Age of a voice in four bands, or an abstention.

No age model is embedded: no package carries one, so without a model every clip abstains and claims of
age stay unverified. Production names a model by hub id or path: audeering's head that gives an age as a number
(`age_gender.py`), or an audio classifier whose labels are ages or bands (`twenties`, `20-29`, `young`, `child`).
"""

import re

import numpy as np
from pydantic import Field

from annotation.voice.age_gender import BANDS
from annotation.voice.audio_classifier import (
    AudioModel,
    ClassWords,
    add_up,
    excerpts,
    is_unnamed,
    load_audio_model,
    named_classes,
    unusable,
)
from voxmill.core.config import Config
from voxmill.data.records import Age, Label

_NAMES = {
    "child": "child",
    "teen": "young",
    "twent": "young",
    "thirt": "young",
    "young": "young",
    "adult": "middle-aged",
    "four": "middle-aged",
    "fort": "middle-aged",
    "fift": "middle-aged",
    "middle": "middle-aged",
    "sixt": "elderly",
    "sevent": "elderly",
    "eight": "elderly",
    "ninet": "elderly",
    "senior": "elderly",
    "elder": "elderly",
    "old": "elderly",
}


class AgeConfig(Config):
    """`model`: null, or a hub id or path. An answer needs `min_probability`."""

    model: str | None = None
    """Path or hub id of audeering's age and gender model or of an audio classifier; null labels no age."""
    labels: ClassWords = {}
    """What the model's classes are, by label or number, where their labels do not say so: {LABEL_0: child, ...}."""
    years_error: float = Field(11.0, gt=0)
    """Standard deviation, in years, of ages that a model gives as a number; it makes them probabilities of bands."""
    min_probability: float = 0.6
    """The label abstains below this probability (0..1)."""
    max_seconds: float = 20.0
    """Of a longer clip the middle this many seconds are used, of one three times as long those of its thirds."""


class AgeClassifier:
    """Age bands of clips; without a model it abstains from all of them.

    Raises:
        UserError: the model cannot be loaded, does not classify audio, or has a label that is not an age.
    """

    def __init__(self, config: AgeConfig, device: str = "cpu"):
        self.config = config
        self._classify: AudioModel | None = None
        self.bands: list[str] = []
        if config.model is not None:
            self._classify = load_audio_model("age", config.model, device, "null to abstain", config.years_error)
            self.bands = named_classes("age", config.model, self._classify.labels, config.labels, age_band, BANDS)

    def __call__(self, clips: list[np.ndarray]) -> list[Label[Age]]:
        """Labels clips, float32 [samples] at 16 kHz in -1..1, in order, one at a time.

        Reasons of an abstention: `no_model`, `too_short`, `silent`, `unsure`.
        """
        return [self._label(clip) for clip in clips]

    def _label(self, clip: np.ndarray) -> Label[Age]:
        if self._classify is None:
            return Label(reason="no_model")
        if reason := unusable(clip):
            return Label(reason=reason)
        scores = [self._classify(part) for part in excerpts(clip, self.config.max_seconds)]
        probabilities = add_up(self.bands, np.mean(scores, axis=0))
        best = max(probabilities, key=lambda band: probabilities[band])
        age = Age(label=best, probability=probabilities[best], probabilities=probabilities)
        if age.probability < self.config.min_probability:
            return Label(reason="unsure", withheld=age)
        return Label(value=age)


def age_band(label: str) -> str | None:
    """The band of a label; of a range or a number of years its middle counts. None where it is no age."""
    plain = label.lower().strip()
    years = [int(number) for number in re.findall(r"\d+", plain)]
    if is_unnamed(plain):
        return None
    if years:
        middle = sum(years) / len(years)
        return "child" if middle < 13 else "young" if middle < 40 else "middle-aged" if middle < 60 else "elderly"
    if "teen" in plain:
        return "young"
    return next((band for start, band in _NAMES.items() if plain.startswith(start)), None)
