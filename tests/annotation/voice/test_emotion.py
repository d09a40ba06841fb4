"""Emotion abstains without a model and where the model is unsure; a trained model has never been run here."""

from pathlib import Path

import numpy as np
import pytest

from annotation.voice.audio_classifier import RATE
from annotation.voice.emotion import EmotionClassifier, EmotionConfig, decide, emotion_name
from tests.support.saved_classifier import save_classifier
from voxmill.core.errors import UserError
from voxmill.data.records import Label


def noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).normal(size=int(seconds * RATE)).astype(np.float32)


def test_without_a_model_emotion_abstains_with_a_reason() -> None:
    labels = EmotionClassifier(EmotionConfig())([noise(1.0)] * 2)
    assert labels == [Label(reason="no_model")] * 2


def test_emotion_is_named_only_where_it_is_clear() -> None:
    names = ["neutral", "happy", "happy", "unknown"]
    clear = decide(names, np.array([0.1, 0.4, 0.4, 0.1]), EmotionConfig())
    assert clear.value is not None and clear.value.label == "happy" and not clear.reason
    assert clear.value.intensity == pytest.approx(0.9)
    assert decide(names, np.array([0.5, 0.4, 0.05, 0.05]), EmotionConfig()).reason == "unsure"
    assert decide(names, np.array([0.1, 0.1, 0.0, 0.8]), EmotionConfig()).reason == "not_an_emotion"
    bored = decide(["bored"], np.array([1.0]), EmotionConfig()).value
    assert bored is not None and bored.intensity is None
    withheld = decide(names, np.array([0.5, 0.4, 0.05, 0.05]), EmotionConfig()).withheld
    assert withheld is not None and withheld.label == "neutral" and withheld.intensity == 0.5


def test_a_lead_that_is_too_small_is_no_answer_even_above_the_probability() -> None:
    config = EmotionConfig(min_probability=0.4, min_margin=0.15)
    assert decide(["sad", "angry"], np.array([0.55, 0.45]), config).reason == "unsure"
    clear = decide(["sad", "angry"], np.array([0.6, 0.4]), config).value
    assert clear is not None and clear.label == "sad"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("ANG", "angry"),
        ("生气/angry", "angry"),
        ("Happiness", "happy"),
        ("neu", "neutral"),
        ("<unk>", "unknown"),
        # None of ours: another state that begins with the same letters.
        ("Disappointed", "disappointed"),
        ("Anguish", "anguish"),
    ],
)
def test_models_labels_get_our_names(label: str, name: str) -> None:
    assert emotion_name(label) == name


def test_a_model_is_loaded_by_path_and_abstains_from_silence(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "emotions", ["ang", "neu", "hap"])
    clips = [noise(2.0), np.zeros(RATE, dtype=np.float32), np.zeros(10, dtype=np.float32), noise(2.0)]
    labels = EmotionClassifier(EmotionConfig(model=path))(clips)
    first = labels[0].measured
    assert first is not None and set(first.probabilities) == {"angry", "neutral", "happy"}
    assert sum(first.probabilities.values()) == pytest.approx(1.0, abs=1e-4)
    assert [label.reason for label in labels[1:3]] == ["silent", "too_short"]
    # Its neighbours in the call change nothing.
    assert labels[0] == labels[3]


def test_of_a_long_clip_the_middle_counts(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "emotions", ["ang", "neu"])
    classifier = EmotionClassifier(EmotionConfig(model=path, max_seconds=1.0))
    clip = noise(3.0)
    whole, piece = classifier([clip])[0], classifier([clip[RATE : 2 * RATE]])[0]
    assert whole == piece and whole.measured is not None


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="emotion.model.*nothing"):
        EmotionClassifier(EmotionConfig(model=str(tmp_path / "nothing")))
