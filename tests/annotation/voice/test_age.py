"""Age abstains without a model; labels of models become four bands."""

from pathlib import Path

import numpy as np
import pytest

from annotation.voice.age import AgeClassifier, AgeConfig, age_band
from annotation.voice.audio_classifier import RATE
from tests.support.saved_classifier import save_classifier
from voxmill.core.errors import UserError
from voxmill.data.records import Label


@pytest.mark.parametrize(
    ("label", "band"),
    [
        ("twenties", "young"),
        ("20-29", "young"),
        ("Fifties", "middle-aged"),
        ("60+", "elderly"),
        ("child", "child"),
        ("7-12", "child"),
        ("seventies", "elderly"),
        ("adult", "middle-aged"),
        ("eighteen", "young"),
        ("fourteen years", "young"),
        ("LABEL_0", None),
        ("label 25", None),
        ("happy", None),
    ],
)
def test_models_labels_become_bands(label: str, band: str | None) -> None:
    assert age_band(label) == band


def test_without_a_model_age_abstains_with_a_reason() -> None:
    assert AgeClassifier(AgeConfig())([np.ones(RATE, dtype=np.float32)]) == [Label(reason="no_model")]


def test_a_model_is_loaded_by_path_and_bands_are_added_up(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "ages", ["teens", "twenties", "sixties"])
    clips = [0.1 * np.random.default_rng(0).normal(size=RATE).astype(np.float32), np.zeros(RATE, dtype=np.float32)]
    labels = AgeClassifier(AgeConfig(model=path, min_probability=0.0))([*clips, clips[0][:100]])
    age = labels[0].value
    assert age is not None and set(age.probabilities) == {"young", "elderly"} and age.label in ("young", "elderly")
    assert [label.reason for label in labels[1:]] == ["silent", "too_short"]
    unsure = AgeClassifier(AgeConfig(model=path, min_probability=1.0))(clips)[0]
    assert unsure == Label(reason="unsure", withheld=age)


def test_what_is_not_an_age_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'happy' names no age"):
        AgeClassifier(AgeConfig(model=save_classifier(tmp_path / "moods", ["happy", "sad"])))
    with pytest.raises(UserError, match="age.model"):
        AgeClassifier(AgeConfig(model=str(tmp_path / "nothing")))
