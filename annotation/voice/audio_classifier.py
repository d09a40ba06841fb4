"""What gender, age and emotion share: models that give each class of a voice a probability, and clips for them.

A model is named by hub id or path. What its files look like decides which format it has: an audio classifier of
transformers, audeering's heads for age and gender (`age_gender.py`), or emotion2vec+ of FunASR (`emotion2vec.py`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import BeforeValidator

from voxmill.core.errors import UserError, first_line
from voxmill.core.local_copies import local_model

RATE = 16000
MIN_SAMPLES = RATE // 2
SILENT_PEAK = 1e-4
_UNNAMED = re.compile(r"label[_ -]?\d+", re.IGNORECASE)

Labeller = Literal["gender", "emotion", "age", "dialect"]


def _keys_as_text(value: object) -> object:
    return {str(key): word for key, word in value.items()} if isinstance(value, dict) else value


ClassWords = Annotated[dict[str, str], BeforeValidator(_keys_as_text)]
"""Words of a model's classes by label or number, as a configuration maps them."""


class AudioModel(Protocol):
    """A model that gives a clip probabilities of classes."""

    @property
    def labels(self) -> Sequence[str]:
        """Its own names of the classes, in the order of their probabilities."""

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """Float32 [classes] that add up to 1, of float32 [samples] at 16 kHz in -1..1."""


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


def is_unnamed(label: str) -> bool:
    """Whether a label is the number of its class, as libraries write where nobody has named it."""
    return _UNNAMED.fullmatch(label.strip()) is not None


def named_classes(
    labeller: Labeller,
    model: str,
    labels: Sequence[str],
    given: Mapping[str, str],
    known: Callable[[str], str | None],
    words: Sequence[str],
) -> list[str]:
    """The word of each class of a model: as the configuration maps its label, or else as it is known.

    Args:
        labels: the model's own, in order.
        given: `voice_attributes.<labeller>.labels`: words by label or by the number of the class.
        known: the word of a label that needs no mapping.
        words: those that a class may have.

    Raises:
        UserError: a label has no name, or none that is known, and is not mapped; the mapping names another label or
            word.
    """
    key = f"voice_attributes.{labeller}.labels"
    by_label = {label.strip().lower(): word for label, word in given.items()}
    numbers = [str(i) for i in range(len(labels))]
    own = {label.strip().lower() for label in labels}
    if strange := [label for label in by_label if label not in own | {*numbers}]:
        raise UserError(f"{key}: {model} has no label {strange[0]!r}; its labels are {', '.join(map(repr, labels))}")
    if wrong := [word for word in by_label.values() if word not in words]:
        raise UserError(f"{key}: {wrong[0]!r} is none of {', '.join(words)}")
    only_numbers = list(labels) == numbers
    names: list[str] = []
    for number, label in zip(numbers, labels, strict=True):
        word = by_label.get(label.strip().lower(), by_label.get(number))
        if word is None and (only_numbers or is_unnamed(label)):
            raise UserError(
                f"{labeller}.model={model}: its classes have no names ({', '.join(labels)}); say what each is, "
                f"such as {key}={{{label}: {words[0]}}}"
            )
        word = known(label) if word is None else word
        if word is None:
            raise UserError(
                f"{labeller}.model={model}: its label {label!r} names no {labeller}; name another model, or say what "
                f"it is, such as {key}={{{label}: {words[0]}}}"
            )
        names.append(word)
    return names


def load_audio_model(
    labeller: Labeller, model: str, device: str, otherwise: str, years_error: float = 0.0
) -> AudioModel:
    """The model of a labeller, in whichever format it is.

    Args:
        labeller: section of the configuration that names the model.
        otherwise: what the section can hold in place of a model.
        years_error: standard deviation, in years, of the ages of a model that gives an age as a number.

    Raises:
        UserError: the model cannot be loaded or does not classify audio.
    """
    from annotation.voice.age_gender import AgeGender, has_age_gender_heads
    from annotation.voice.emotion2vec import Emotion2vec, funasr_folder

    place = local_model(model)
    try:
        if labeller == "emotion" and (folder := funasr_folder(place)) is not None:
            return Emotion2vec(Path(folder), device)
        if labeller in ("age", "gender") and has_age_gender_heads(place):
            return AgeGender(labeller, place, device, years_error)
        return TransformersClassifier(place, device)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise UserError(
            f"{labeller}.model={model}: cannot load it as an audio classifier ({reason}); name another, or {otherwise}"
        ) from error


class TransformersClassifier:
    """An audio classifier of transformers, one clip at a time, so that padding changes nothing.

    Raises:
        ValueError: some of its weights are not in its files, as of a model that was never trained to classify; its
            answers are no probabilities of classes; it takes audio of another rate.
    """

    def __init__(self, place: str, device: str):
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        self._device = device
        extractors: Any = AutoFeatureExtractor
        self._extract = extractors.from_pretrained(place)
        refuse_rate(self._extract)
        loaded: Any = AutoModelForAudioClassification.from_pretrained(place, output_loading_info=True)
        network, info = loaded
        refuse_missing(info)
        problem = network.config.problem_type or "single_label_classification"
        if problem != "single_label_classification" or network.config.num_labels < 2:
            raise ValueError(f"it answers {network.config.num_labels} of {problem}, not one of several classes")
        self._model: Any = network.to(device).eval()
        labels = self._model.config.id2label
        self.labels = [str(labels[i]) for i in range(len(labels))]

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        import torch

        inputs = self._extract(clip, sampling_rate=RATE, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            scores: np.ndarray = self._model(**inputs).logits[0].float().softmax(-1).cpu().numpy()
        return scores


def refuse_rate(extractor: Any) -> None:
    """Refuses a feature extractor of another rate, which would fail on every clip.

    Raises:
        ValueError: it is one.
    """
    rate = getattr(extractor, "sampling_rate", RATE)
    if rate != RATE:
        raise ValueError(f"it takes audio at {rate} Hz, not at {RATE}")


def refuse_missing(info: Mapping[str, Any]) -> None:
    """Refuses weights that transformers would draw at random, with no more than a warning.

    Raises:
        ValueError: there are some.
    """
    missing = sorted(info["missing_keys"]) + [str(one[0]) for one in info.get("mismatched_keys", ())]
    if missing:
        raise ValueError(f"its files lack weights such as {missing[0]}")
