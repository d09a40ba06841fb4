"""Age of a voice in four bands, or that there is none to tell.

No age model is embedded: no package was found that carries one, so without a model every clip abstains and claims of
age stay unverified. Production names an audio classifier whose labels are ages or bands (`twenties`, `20-29`, `young`,
`child`) by hub id or path. The path is tested with a small random model; no trained one has been run here.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from voxmill.core.config import Config
from voxmill.core.errors import UserError

RATE = 16000
_NAMES = {
    "child": "child",
    "teen": "young",
    "twent": "young",
    "thirt": "young",
    "young": "young",
    "adult": "middle-aged",
    "four": "middle-aged",
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
    """Path or hub id of an audio classifier; null labels no age."""
    min_probability: float = 0.6
    """The label abstains below this probability (0..1)."""
    max_seconds: float = 20.0
    """Of a longer clip the middle this many seconds are used."""


@dataclass(frozen=True)
class Age:
    """`label` is `child`, `young` (13-39), `middle-aged` (40-59) or `elderly`; None for an abstention with its `reason`:
    `no_model`, `too_short`, `silent`, `unsure`. `probabilities` are over the bands, empty without a model."""

    label: str | None
    probability: float | None
    reason: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)


class AgeClassifier:
    """Age bands of clips; without a model it answers all the same, by abstaining.

    Raises:
        UserError: the model cannot be loaded, does not classify audio, or has a label that is not an age.
    """

    def __init__(self, config: AgeConfig, device: str = "cpu"):
        self.config, self.device = config, device
        self._extract: Any = None
        self._model: Any = None
        self.bands: list[str] = []
        if config.model is None:
            return
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        try:
            self._extract = AutoFeatureExtractor.from_pretrained(config.model)
            self._model = AutoModelForAudioClassification.from_pretrained(config.model).to(device).eval()
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"age.model={config.model}: transformers cannot load it as an audio classifier ({reason}); "
                "name another, or null to abstain"
            ) from error
        labels = self._model.config.id2label
        self.bands = [age_band(str(labels[i]), config.model) for i in range(len(labels))]

    def __call__(self, clips: list[np.ndarray]) -> list[Age]:
        """Labels clips, float32 [samples] at 16 kHz in -1..1, in order, one at a time."""
        if self._model is None:
            return [Age(None, None, "no_model")] * len(clips)
        return [self._label(clip) for clip in clips]

    def _label(self, clip: np.ndarray) -> Age:
        import torch

        if len(clip) < RATE // 2:
            return Age(None, None, "too_short")
        if float(np.abs(clip).max()) < 1e-4:
            return Age(None, None, "silent")
        length = round(self.config.max_seconds * RATE)
        start = max((len(clip) - length) // 2, 0)
        inputs = self._extract(clip[start : start + length], sampling_rate=RATE, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            scores = self._model(**inputs).logits[0].float().softmax(-1).cpu().tolist()
        probabilities: dict[str, float] = {}
        for band, score in zip(self.bands, scores, strict=True):
            probabilities[band] = probabilities.get(band, 0.0) + score
        best = max(probabilities, key=lambda band: probabilities[band])
        unsure = probabilities[best] < self.config.min_probability
        return Age(None if unsure else best, probabilities[best], "unsure" if unsure else "", probabilities)


def age_band(label: str, model: str = "") -> str:
    """Our band of a model's label; of a range or a number of years its middle counts.

    Raises:
        UserError: the label is not an age.
    """
    plain = label.lower().strip()
    years = [int(number) for number in re.findall(r"\d+", plain)]
    if years:
        middle = sum(years) / len(years)
        return "child" if middle < 13 else "young" if middle < 40 else "middle-aged" if middle < 60 else "elderly"
    for start, band in _NAMES.items():
        if plain.startswith(start):
            return band
    raise UserError(f"age.model={model}: its label {label!r} is not an age; name a model whose labels are ages")
