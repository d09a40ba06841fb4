"""Gender: what the embedded trees can and cannot do on the sample voices, their parts, and the production path."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.voice.audio_classifier import RATE, excerpts
from annotation.voice.gender import BoostedTrees, GenderClassifier, GenderConfig, voice_features
from samples.turns import Turn, sample_turns
from tests.support.saved_classifier import save_classifier
from voxmill.core.assets import asset_path
from voxmill.core.errors import UserError


@pytest.fixture(scope="module")
def classifier() -> GenderClassifier:
    return GenderClassifier(GenderConfig(), asset_path("voice2gender"))


@pytest.fixture(scope="module")
def turns() -> list[Turn]:
    return sample_turns()


def voice(hz: float, seconds: float = 2.0) -> np.ndarray:
    """Damped pulses with the small irregularity of a throat."""
    rng = np.random.default_rng(0)
    wave = np.zeros(int(seconds * RATE) + 400)
    pulse = np.exp(-np.arange(400) / 60) * np.sin(2 * np.pi * 500 * np.arange(400) / RATE)
    position = 0.0
    while position < seconds * RATE:
        wave[int(position) : int(position) + 400] += pulse
        position += RATE / hz * (1 + 0.01 * rng.normal())
    scaled: np.ndarray = (0.5 * wave / np.abs(wave).max()).astype(np.float32)
    return scaled


def test_the_embedded_model_knows_the_women_and_not_the_man(classifier: GenderClassifier, turns: list[Turn]) -> None:
    """A change either way should be seen."""
    labels = classifier([turn.audio for turn in turns])
    answers = {
        name: [g.value.label for g, t in zip(labels, turns, strict=True) if t.speaker == name and g.value]
        for name in ("allison-smith", "june-wallack", "carlo-flora")
    }
    assert set(answers["allison-smith"]) == set(answers["june-wallack"]) == {"female"}
    assert len(answers["allison-smith"]) + len(answers["june-wallack"]) == 50
    assert answers["carlo-flora"].count("male") <= 5
    assert all(label.measured is not None and (label.value or label.reason == "unsure") for label in labels)


def test_every_way_to_abstain_has_its_reason(
    classifier: GenderClassifier, turns: list[Turn], monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = np.zeros(RATE, dtype=np.float32)
    labels = classifier([silence, silence[:100]])
    assert [label.reason for label in labels] == ["silent", "too_short"]
    with monkeypatch.context() as patch:
        patch.setattr("annotation.voice.gender._cepstral_pitch", lambda wave: np.zeros(0))
        labels += classifier([turns[0].audio])
    assert labels[2].reason == "no_pitch"
    assert all(label.measured is None for label in labels)
    assert classifier([]) == []
    never_sure = GenderClassifier(GenderConfig(min_probability=1.0), asset_path("voice2gender"))
    unsure = never_sure([turns[0].audio])[0]
    assert unsure.value is None and unsure.reason == "unsure" and unsure.withheld is not None


def test_an_answer_does_not_depend_on_the_rest_of_the_call(classifier: GenderClassifier, turns: list[Turn]) -> None:
    clips = [turn.audio for turn in turns[:3]]
    assert classifier(clips)[2] == classifier([clips[2]])[0]


def test_features_follow_the_voice() -> None:
    low, high = voice_features(voice(90.0)), voice_features(voice(220.0))
    assert low is not None and high is not None
    # The data set's cepstral pitch errs by octaves in single frames: its mean is near, not at, the pitch.
    assert low["meanfun"] == pytest.approx(0.09, rel=0.15) and high["meanfun"] == pytest.approx(0.22, rel=0.15)
    for features in (low, high):
        assert 0 <= features["Q25"] <= features["median"] <= features["Q75"] <= 0.28
        assert features["IQR"] == pytest.approx(features["Q75"] - features["Q25"]) and 0 < features["sp.ent"] <= 1
        assert features["mindom"] <= features["meandom"] <= features["maxdom"] and 0 < features["sfm"] <= 1
        assert all(np.isfinite(value) for value in features.values())


def forest(thresholds: list[float], base: str) -> dict[str, Any]:
    """One split on feature 0 a tree: -1 below the threshold, +1 from it on."""
    tree = {"left_children": [1, -1, -1], "right_children": [2, -1, -1], "split_indices": [0, 0, 0]}
    trees = [{**tree, "split_conditions": [threshold, -1.0, 1.0]} for threshold in thresholds]
    return {
        "learner": {
            "feature_names": ["a"],
            "learner_model_param": {"base_score": base},
            "gradient_booster": {"model": {"trees": trees}},
        }
    }


def test_trees_add_their_leaves_to_the_base() -> None:
    trees = BoostedTrees(forest([1.0, 3.0], "[5E-1]"))
    sigmoid = [float(1 / (1 + np.exp(-margin))) for margin in (-2.0, 0.0, 2.0)]
    assert [trees([value]) for value in (0.0, 2.0, 4.0)] == pytest.approx(sigmoid)
    # A value at the threshold goes right, as in xgboost.
    assert trees([1.0]) == pytest.approx(0.5)
    assert BoostedTrees(forest([], "2E-1"))([0.0]) == pytest.approx(0.2)


def test_weights_are_read_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_model.py").write_text("import os\nos.mkdir('ran')\nFEATURE_NAMES = ['a']\nx = {'learner': f()}\n")
    with pytest.raises(UserError, match="does not hold the trees"):
        GenderClassifier(GenderConfig(), tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_model_is_loaded_by_path_and_a_third_class_is_left_out(tmp_path: Path, turns: list[Turn]) -> None:
    path = save_classifier(tmp_path / "three", ["female", "male", "child"])
    config = GenderConfig(model=path, min_probability=0.5)
    labels = GenderClassifier(config)([turns[0].audio, np.zeros(RATE, dtype=np.float32)])
    gender = labels[0].value
    assert gender is not None and gender.label == ("female" if gender.female >= 0.5 else "male")
    assert 0 <= gender.female <= 1
    assert labels[1].reason == "silent"


def test_a_model_that_does_not_answer_the_question_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no gender"):
        GenderClassifier(GenderConfig(model=save_classifier(tmp_path / "moods", ["happy", "sad"])))
    with pytest.raises(UserError, match="gender.model"):
        GenderClassifier(GenderConfig(model=str(tmp_path / "nothing")))


def test_of_a_long_clip_each_third_counts() -> None:
    clip = np.arange(10 * RATE, dtype=np.float32)
    assert [len(part) for part in excerpts(clip, 4.0)] == [4 * RATE]
    np.testing.assert_array_equal(excerpts(clip, 4.0)[0], clip[3 * RATE : 7 * RATE])
    assert len(excerpts(clip[:RATE], 4.0)[0]) == RATE
    parts = excerpts(clip[: 9 * RATE], 2.0)
    assert [float(part[0]) / RATE for part in parts] == [0.5, 3.5, 6.5] and {len(part) for part in parts} == {2 * RATE}
