"""Names of a model's classes, and models that are none: nothing is labelled by a class that nobody has named."""

import json
from pathlib import Path

import pytest

from annotation.voice.age import AgeClassifier, AgeConfig
from annotation.voice.audio_classifier import Labeller, load_audio_model, named_classes
from annotation.voice.emotion import EMOTIONS, EmotionClassifier, EmotionConfig, known_emotion
from annotation.voice.gender import GenderClassifier, GenderConfig
from pipelines.config import VoiceAttributesConfig
from tests.support.saved_classifier import save_classifier
from voxmill.core.config import load_config
from voxmill.core.errors import UserError


@pytest.mark.parametrize("labels", [["LABEL_0", "LABEL_1"], ["label-0", "happy"], ["0", "1"], ["Label 1", "Label 2"]])
def test_classes_without_names_are_refused(labels: list[str]) -> None:
    with pytest.raises(UserError, match=r"have no names .*such as voice_attributes.emotion.labels="):
        named_classes("emotion", "m", labels, {}, known_emotion, EMOTIONS)


def test_a_class_of_another_name_is_refused_unless_it_is_mapped() -> None:
    labels = ["bored", "ang", "5"]
    with pytest.raises(UserError, match="its label 'bored' names no emotion"):
        named_classes("emotion", "m", labels, {}, known_emotion, EMOTIONS)
    given = {"Bored": "neutral", "2": "sad"}
    assert named_classes("emotion", "m", labels, given, known_emotion, EMOTIONS) == ["neutral", "angry", "sad"]
    with pytest.raises(UserError, match="has no label 'sleepy'"):
        named_classes("emotion", "m", labels, {"sleepy": "calm"}, known_emotion, EMOTIONS)
    with pytest.raises(UserError, match="'glum' is none of neutral"):
        named_classes("emotion", "m", labels, {"bored": "glum"}, known_emotion, EMOTIONS)


def test_a_model_saved_without_names_is_refused_by_every_labeller(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "unnamed", ["LABEL_0", "LABEL_1"])
    with pytest.raises(UserError, match=r"emotion.model=.*LABEL_0, LABEL_1"):
        EmotionClassifier(EmotionConfig(model=path))
    with pytest.raises(UserError, match="age.model=.*have no names"):
        AgeClassifier(AgeConfig(model=path))
    with pytest.raises(UserError, match="gender.model=.*have no names"):
        GenderClassifier(GenderConfig(model=path))
    mapped = AgeClassifier(AgeConfig(model=path, labels={"LABEL_0": "young", "1": "elderly"}))
    assert mapped.bands == ["young", "elderly"]
    GenderClassifier(GenderConfig(model=path, labels={"label_0": "male", "label_1": "female"}))


@pytest.mark.parametrize("labeller", ["emotion", "age", "gender"])
def test_a_network_that_was_never_trained_to_classify_is_refused(tmp_path: Path, labeller: Labeller) -> None:
    """Transformers draws its head at random, with a warning."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match=rf"{labeller}.model=.*lack weights such as "):
        load_audio_model(labeller, str(tmp_path), "cpu", "null")


@pytest.mark.parametrize(
    ("file", "key", "value", "complaint"),
    [
        ("preprocessor_config.json", "sampling_rate", 8000, "takes audio at 8000 Hz"),
        ("config.json", "problem_type", "multi_label_classification", "answers 2 of multi_label_classification"),
        ("config.json", "problem_type", "regression", "answers 2 of regression"),
    ],
)
def test_a_model_whose_answers_are_no_classes_of_our_clips_is_refused(
    tmp_path: Path, file: str, key: str, value: object, complaint: str
) -> None:
    path = Path(save_classifier(tmp_path / "model", ["happy", "sad"]))
    values = json.loads((path / file).read_text()) | {key: value}
    (path / file).write_text(json.dumps(values))
    with pytest.raises(UserError, match=complaint):
        EmotionClassifier(EmotionConfig(model=str(path)))


def test_numbers_of_classes_may_be_numbers_in_a_recipe() -> None:
    config = load_config(VoiceAttributesConfig, None, ["emotion.labels={0: sad, LABEL_1: happy}"])
    assert config.emotion.labels == {"0": "sad", "LABEL_1": "happy"}
