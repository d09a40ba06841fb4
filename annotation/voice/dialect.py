"""Which dialect of Chinese a clip is in, or an abstention.

No package carries a model that tells the dialects apart, so without one every clip abstains. Production names an audio
classifier whose labels are dialects by hub id or path: by tags (`yue`, `zh-SICHUAN`), in English or in Chinese. An
identifier of languages may be one, such as MMS's, which have `yue` and `cmn`.
"""

from collections.abc import Sequence

import numpy as np

from annotation.voice.audio_classifier import AudioModel, add_up, excerpts, load_audio_model, unusable
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.data.languages import base_language, dialect_code, is_standard_chinese
from voxmill.data.records import Dialect, Label

STANDARD = "zh"
"""Mandarin as it is taught, and every other Chinese that has no tag here."""
_OTHER = ""


class DialectConfig(Config):
    """`model`: null, or a hub id or path. An answer needs `min_probability`."""

    model: str | None = None
    """Path or hub id of an audio classifier; null labels no dialect."""
    min_probability: float = 0.6
    """The label abstains below this probability (0..1) among the kinds of Chinese that the model knows."""
    max_seconds: float = 20.0
    """Of a longer clip the middle this many seconds are used, of one three times as long those of its thirds."""


class DialectClassifier:
    """Dialects of clips in Chinese; without a model it abstains from all of them.

    Raises:
        UserError: the model cannot be loaded, does not classify audio, or none of its labels is a dialect.
    """

    def __init__(self, config: DialectConfig, device: str = "cpu"):
        self.config = config
        self._classify: AudioModel | None = None
        self.codes: list[str] = []
        if config.model is not None:
            self._classify = load_audio_model("dialect", config.model, device, "null to abstain")
            self.codes = [_code(label) for label in self._classify.labels]
            if not any(code not in (_OTHER, STANDARD) for code in self.codes):
                shown = ", ".join(self._classify.labels[:5])
                raise UserError(
                    f"dialect.model={config.model}: none of its labels ({shown} ...) is a dialect of Chinese; name a "
                    "model whose labels are, such as yue or Sichuanese"
                )

    def __call__(self, clips: Sequence[np.ndarray], languages: Sequence[str]) -> list[Label[Dialect]]:
        """Labels clips, float32 [samples] at 16 kHz in -1..1, in order, one at a time.

        Reasons of an abstention: `no_model`, `not_chinese`, `too_short`, `silent`, `unsure`.
        """
        return [self._label(clip, language) for clip, language in zip(clips, languages, strict=True)]

    def _label(self, clip: np.ndarray, language: str) -> Label[Dialect]:
        if base_language(language) != "zh":
            return Label(reason="not_chinese")
        if self._classify is None:
            return Label(reason="no_model")
        if reason := unusable(clip):
            return Label(reason=reason)
        scores = [self._classify(part) for part in excerpts(clip, self.config.max_seconds)]
        return decide(self.codes, np.mean(scores, axis=0), self.config)


def decide(codes: Sequence[str], scores: np.ndarray, config: DialectConfig) -> Label[Dialect]:
    """The answer of a probability vector [classes], or an abstention; other languages than Chinese do not count."""
    added = add_up(codes, scores)
    added.pop(_OTHER, None)
    total = sum(added.values())
    if not total > 0:
        return Label(reason="unsure")
    probabilities = {code: score / total for code, score in added.items()}
    best = max(probabilities, key=lambda code: probabilities[code])
    dialect = Dialect(label=best, probability=probabilities[best], probabilities=probabilities)
    if dialect.probability < config.min_probability:
        return Label(reason="unsure", withheld=dialect)
    return Label(value=dialect)


def _code(label: str) -> str:
    """Our code of a model's label; "" where it is no kind of Chinese."""
    # As emotions, some are Chinese and English with a slash between.
    for name in (label, *label.split("/")):
        code = dialect_code(name)
        if code is not None:
            return code
    return STANDARD if is_standard_chinese(label) else _OTHER
