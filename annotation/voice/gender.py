"""How a voice sounds, female or male, with a probability; abstains where it is unsure or two models disagree.

Embedded are two models that share nothing: the network of inaSpeechSegmenter (`gender_cnn.py`), and the trees of
voice2gender (MIT), 250 boosted trees over 20 acoustic features. What each says is kept, and over the clips of a speaker
each votes by itself (`annotation/corpus/speaker_traits.py`). The weights of the trees are a literal inside a Python
file, which is parsed as data and never run; the trees are walked here, so xgboost need not be installed. The features
are written from their definitions (R packages seewave and tuneR, data set 'Gender Recognition by Voice'): they describe
what a voice sounds like, not the person. Production names a model by hub id or path: audeering's head for age and
gender (`age_gender.py`), or an audio classifier with female and male among its labels; neither has been run with
trained weights.

On the sample voices the trees are right in all 50 answers about the two women, and in 3 of 15 about the man, whose
lively delivery lies at 175 Hz; the network knows him. Both over all known voices: benchmarks/gender.py.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from annotation.voice.audio_classifier import RATE, ClassWords, excerpts, load_audio_model, named_classes, unusable
from annotation.voice.gender_cnn import FILE, GenderCnn
from voxmill.core.audio import resample
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.data.records import Gender, Label

# The trees were grown on 44.1 kHz audio in frames of 2048 samples.
MODEL_RATE = 44100
FRAME = 2048
GENDERS = ("female", "male", "other")


class GenderConfig(Config):
    """`min_probability`: an answer needs at least this, otherwise the classifier abstains (0.5 never does)."""

    model: str = "embedded"
    """`embedded`, or the path or hub id of audeering's age and gender model or of an audio classifier."""
    embedded: tuple[Literal["cnn", "trees"], ...] = Field(("cnn", "trees"), min_length=1)
    """Which embedded models are asked: cnn (inaSpeechSegmenter's network), trees (voice2gender)."""
    labels: ClassWords = {}
    """What the model's classes are, by label or number, where their labels do not say so: {LABEL_0: female, ...}."""
    min_probability: float = 0.8
    """The label abstains below this probability; 0.5 never abstains."""
    max_seconds: float = 20.0
    """Of a longer clip the middle this many seconds are used, of one three times as long those of its thirds."""


class GenderClassifier:
    """Gender of clips.

    Args:
        config: `config.model` is `embedded` or a hub id or path.
        trees, cnn: folders of the assets `voice2gender` and `gender-cnn`; an embedded model without one is not asked.

    Raises:
        UserError: the model cannot be loaded, or its labels name no female or no male class.
    """

    def __init__(
        self, config: GenderConfig, trees: Path | None = None, device: str = "cpu", *, cnn: Path | None = None
    ):
        self.config = config
        self._models: dict[str, Callable[[np.ndarray], float | None]] = {}
        if config.model != "embedded":
            self._models["model"] = _NeuralGender(config, device)
            return
        if cnn is not None and "cnn" in config.embedded:
            self._models["cnn"] = GenderCnn(cnn / FILE, device)
        if trees is not None and "trees" in config.embedded:
            self._models["trees"] = BoostedTrees.load(trees / "_model.py").of_voice
        assert self._models, "no embedded model is asked"

    def __call__(self, clips: list[np.ndarray]) -> list[Label[Gender]]:
        """Labels clips, float32 [samples] at 16 kHz in -1..1, in order.

        Reasons of an abstention: `too_short`, `silent`, `no_speech`, `no_pitch`, `unsure`, `disagree`.
        """
        return [self._label(clip) for clip in clips]

    def _label(self, clip: np.ndarray) -> Label[Gender]:
        if reason := unusable(clip):
            return Label(reason=reason)
        parts, by_model = excerpts(clip, self.config.max_seconds), {}
        for name, model in self._models.items():
            known = [female for part in parts if (female := model(part)) is not None]
            if known:
                by_model[name] = sum(known) / len(known)
        if "cnn" in self._models and "cnn" not in by_model:
            # It looks for stretches of speech first; the trees find a gender in a click.
            return Label(reason="no_speech")
        if not by_model:
            return Label(reason="no_pitch")
        female, sure = sum(by_model.values()) / len(by_model), self.config.min_probability
        gender = Gender(label="female" if female >= 0.5 else "male", female=female, by_model=by_model)
        if len({one >= 0.5 for one in by_model.values() if max(one, 1 - one) >= sure}) > 1:
            return Label(reason="disagree", withheld=gender)
        if gender.probability < sure:
            return Label(reason="unsure", withheld=gender)
        return Label(value=gender)


class BoostedTrees:
    """A binary logistic gradient-boosted model in xgboost's JSON form."""

    def __init__(self, model: dict[str, Any]):
        learner = model["learner"]
        booster = learner["gradient_booster"]["model"]
        self.feature_names: list[str] = list(learner["feature_names"])
        base = float(str(learner["learner_model_param"]["base_score"]).strip("[]"))
        self._margin = float(np.log(base / (1 - base)))
        self._trees = [
            (
                np.array(tree["left_children"]),
                np.array(tree["right_children"]),
                np.array(tree["split_indices"]),
                np.array(tree["split_conditions"], dtype=np.float32),
            )
            for tree in booster["trees"]
        ]

    @classmethod
    def load(cls, path: Path) -> "BoostedTrees":
        """Reads the model's literal out of a Python source without running it.

        Raises:
            UserError: the file does not hold such a literal.
        """
        try:
            body = ast.parse(path.read_text(encoding="utf-8")).body
            names = next(
                node.value
                for node in body
                if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == "FEATURE_NAMES"
            )
            literal = next(node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Dict))
            return cls(ast.literal_eval(_Substitute(names).visit(literal)))
        except (OSError, SyntaxError, ValueError, StopIteration, KeyError, TypeError) as error:
            raise UserError(
                f"gender: {path} does not hold the trees ({type(error).__name__}); run: voxmill fetch"
            ) from error

    def of_voice(self, clip: np.ndarray) -> float | None:
        """Probability of a female voice in float32 [samples] at 16 kHz; None where no frame has a pitch."""
        features = voice_features(clip)
        return None if features is None else self([features[name] for name in self.feature_names])

    def __call__(self, features: list[float]) -> float:
        """Probability of the positive class for finite features in the model's order."""
        values = np.asarray(features, dtype=np.float32)
        margin = self._margin
        for left, right, split, condition in self._trees:
            node = 0
            while left[node] >= 0:
                node = left[node] if values[split[node]] < condition[node] else right[node]
            # A leaf keeps its value where an inner node has its threshold.
            margin += float(condition[node])
        return float(1 / (1 + np.exp(-margin)))


class _Substitute(ast.NodeTransformer):
    """Puts the list of feature names where the literal refers to it."""

    def __init__(self, names: ast.expr):
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._names if node.id == "FEATURE_NAMES" else node


def voice_features(audio: np.ndarray) -> dict[str, float] | None:
    """The 20 features by the data set's names, frequencies in kHz; None where no frame has a pitch.

    Args:
        audio: float32 [samples] at 16 kHz, at least 0.1 s and not silent.
    """
    # Rounded to 16 bits, as all audio was that the trees have seen: their answers are that sensitive.
    wave = np.round(np.clip(resample(audio.astype(np.float64), RATE, MODEL_RATE), -1, 1 - 2**-15) * 2**15) / 2**15
    # Frames count only what is above 5 % of the clip's peak; the spectrum is of the clip as it is.
    gated = np.where(np.abs(wave) <= 0.05 * np.abs(wave).max(), 0.0, wave)
    f0 = _cepstral_pitch(gated)
    dominant = _dominant_frequency(gated)
    if not len(f0) or not len(dominant):
        return None
    span = float(dominant.max() - dominant.min())
    steps = float(np.abs(np.diff(dominant)).mean()) if len(dominant) > 1 else 0.0
    return {
        **_low_spectrum(wave),
        "meanfun": float(f0.mean()),
        "minfun": float(f0.min()),
        "maxfun": float(f0.max()),
        "meandom": float(dominant.mean()),
        "mindom": float(dominant.min()),
        "maxdom": float(dominant.max()),
        "dfrange": span,
        "modindx": steps / span if span > 0 else 0.0,
    }


def _low_spectrum(wave: np.ndarray) -> dict[str, float]:
    """Statistics of the clip's spectrum up to 280 Hz as a distribution (seewave's `specprop`)."""
    magnitude = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))[: len(wave) // 2]
    khz = np.arange(len(magnitude)) * (MODEL_RATE / 1000 / len(wave))
    magnitude, khz = magnitude[khz <= 0.28], khz[khz <= 0.28]
    share = magnitude / magnitude.sum()
    mean = float((share * khz).sum())
    deviation = share - share.mean()
    spread = float(share.std(ddof=1)) or 1.0
    below = np.cumsum(share)
    q25, median, q75 = (
        float(khz[min(int(np.searchsorted(below, q, side="right")), len(khz) - 1)]) for q in (0.25, 0.5, 0.75)
    )
    entropy_share = np.maximum(share, 1e-7)
    entropy_share = entropy_share / entropy_share.sum()
    # Long spectra are thinned out before flatness, whose floor would otherwise dominate.
    thin = share[:: max(1, round(len(share) / 256))] if len(share) > 4000 else share
    thin = np.maximum(thin, 1e-5)
    return {
        "meanfreq": mean,
        "centroid": mean,
        "sd": float(np.sqrt((share * (khz - mean) ** 2).sum())),
        "median": median,
        "Q25": q25,
        "Q75": q75,
        "IQR": q75 - q25,
        "mode": float(khz[int(share.argmax())]),
        "skew": float((deviation**3).sum() / ((len(share) - 1) * spread**3)),
        "kurt": float((deviation**4).sum() / ((len(share) - 1) * spread**4)),
        "sp.ent": float(-(entropy_share * np.log(entropy_share)).sum() / np.log(len(share))),
        "sfm": float(np.exp(np.log(thin).mean()) / thin.mean()),
    }


def _frames(wave: np.ndarray, hop: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::hop]


def _cepstral_pitch(wave: np.ndarray) -> np.ndarray:
    """Pitch of each frame in kHz from the highest cepstral peak, only where it lies in 50-280 Hz."""
    frames = _frames(wave, FRAME // 2)
    logarithm = np.log(np.maximum(np.abs(np.fft.fft(np.where(frames == 0, 1e-6, frames), axis=1)), 1e-12))
    cepstrum = np.fft.ifft(logarithm, axis=1).real
    shortest = MODEL_RATE // 280
    peak = np.argmax(cepstrum[:, shortest : FRAME // 2], axis=1)
    hertz = MODEL_RATE / (shortest + peak)
    pitches: np.ndarray = hertz[(peak > 0) & (hertz >= 50) & (hertz <= 280)] / 1000
    return pitches


def _dominant_frequency(wave: np.ndarray) -> np.ndarray:
    """Strongest frequency of each frame in kHz up to 7 kHz, frames without any signal left out."""
    magnitude = np.abs(np.fft.rfft(_frames(wave, FRAME) * np.hanning(FRAME), axis=1))[:, :-1]
    khz = np.arange(magnitude.shape[1]) * (MODEL_RATE / 1000 / FRAME)
    magnitude = magnitude[:, khz <= 7.0]
    strongest: np.ndarray = khz[magnitude[magnitude.max(axis=1) > 1e-12].argmax(axis=1)]
    return strongest


class _NeuralGender:
    """A model with female and male among its classes; a third, child or other, is no answer to this question."""

    def __init__(self, config: GenderConfig, device: str):
        self._classify = load_audio_model("gender", config.model, device, "embedded")
        labels = self._classify.labels
        names = named_classes("gender", config.model, labels, config.labels, _gender_name, GENDERS)
        self._female = [i for i, name in enumerate(names) if name == "female"]
        self._male = [i for i, name in enumerate(names) if name == "male"]
        if not self._female or not self._male:
            raise UserError(f"gender.model={config.model}: its labels {sorted(labels)} name no female and male")

    def __call__(self, clip: np.ndarray) -> float:
        scores = self._classify(clip)
        female, male = float(scores[self._female].sum()), float(scores[self._male].sum())
        return female / max(female + male, 1e-12)


def _gender_name(label: str) -> str | None:
    plain = label.lower().strip()
    words = {"female": ("female", "f", "woman"), "male": ("male", "m", "man"), "other": ("child", "other", "unknown")}
    return next((name for name, known in words.items() if plain in known), None)
