"""Dialects: clips in Chinese alone are asked about, by a model whose labels are dialects; without one nobody knows."""

from pathlib import Path

import numpy as np
import pytest

from annotation.voice.audio_classifier import RATE
from annotation.voice.dialect import DialectClassifier, DialectConfig, decide
from tests.support.saved_classifier import save_classifier
from voxmill.core.errors import UserError
from voxmill.data.records import Label

NOISE = 0.1 * np.random.default_rng(0).normal(size=RATE).astype(np.float32)


def test_without_a_model_nobody_knows_and_says_so() -> None:
    labels = DialectClassifier(DialectConfig())([NOISE, NOISE, NOISE], ["zh", "zh-sichuan", "en"])
    assert [label.reason for label in labels] == ["no_model", "no_model", "not_chinese"]


def test_a_model_is_asked_about_chinese_and_its_labels_become_our_codes(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "m", ["eng", "cmn", "yue", "四川话/Sichuanese", "zh-SHANGHAI", "Putonghua"])
    classifier = DialectClassifier(DialectConfig(model=path, min_probability=0.0))
    assert classifier.codes == ["", "zh", "zh-yue", "zh-sichuan", "zh-wu", "zh"]
    silent, english, label = classifier([NOISE * 0, NOISE, NOISE], ["zh", "en", "zh-yue"])
    assert (silent.reason, english.reason) == ("silent", "not_chinese")
    assert label.value is not None and set(label.value.probabilities) == {"zh", "zh-yue", "zh-sichuan", "zh-wu"}
    assert sum(label.value.probabilities.values()) == pytest.approx(1)
    unsure = DialectClassifier(DialectConfig(model=path, min_probability=1.0))([NOISE], ["zh"])[0]
    assert unsure == Label(reason="unsure", withheld=label.value)


def test_other_languages_of_a_model_do_not_count() -> None:
    label = decide(["", "zh-yue", "zh"], np.array([0.9, 0.08, 0.02]), DialectConfig())
    assert label.value is not None and label.value.label == "zh-yue"
    assert label.value.probability == pytest.approx(0.8)
    assert decide(["", "zh-yue"], np.array([1.0, 0.0]), DialectConfig()) == Label(reason="unsure")


@pytest.mark.parametrize("labels", [["LABEL_0", "LABEL_1"], ["cmn", "eng"], ["happy", "sad"]])
def test_a_model_whose_labels_are_no_dialects_is_refused(tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(UserError, match=f"dialect.model=.*none of its labels .{labels[0]}"):
        DialectClassifier(DialectConfig(model=save_classifier(tmp_path / "m", labels)))
