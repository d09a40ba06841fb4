"""audeering's heads for age and gender on weights drawn at random, against their published forward pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from annotation.voice.age import AgeClassifier, AgeConfig
from annotation.voice.age_gender import band_probabilities
from annotation.voice.gender import GenderClassifier, GenderConfig
from tests.evaluation.metrics.encoders.drawn_weights import wave
from tests.support.saved_classifier import save_age_gender
from voxmill.core.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_age_gender(tmp_path_factory.mktemp("heads") / "model")


def published(model: str, clip: np.ndarray) -> tuple[float, np.ndarray]:
    """Years, and probabilities of female, male and child, as their model card computes them: the mean over time of the
    last hidden state, then for each head dense, tanh, projection; age times a hundred."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    state = load_file(Path(model) / "model.safetensors")
    network: Any = Wav2Vec2Model(Wav2Vec2Config.from_pretrained(model)).train(False)
    inner = {name.removeprefix("wav2vec2."): value for name, value in state.items() if name.startswith("wav2vec2.")}
    for old, new in (
        ("weight_g", "parametrizations.weight.original0"),
        ("weight_v", "parametrizations.weight.original1"),
    ):
        inner = {name.replace(old, new): value for name, value in inner.items()}
    network.load_state_dict(inner)
    normal = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    with torch.inference_mode():
        pooled = network(torch.from_numpy(normal)[None]).last_hidden_state.mean(1)[0]
        answers = [
            state[f"{head}.out_proj.weight"]
            @ torch.tanh(state[f"{head}.dense.weight"] @ pooled + state[f"{head}.dense.bias"])
            + state[f"{head}.out_proj.bias"]
            for head in ("age", "gender")
        ]
    return 100 * float(answers[0]), answers[1].softmax(0).numpy()


def test_both_heads_answer_as_the_published_code(model: str) -> None:
    clip = wave(1.3)
    years, genders = published(model, clip)
    age = AgeClassifier(AgeConfig(model=model, min_probability=0))([clip])[0].value
    assert age is not None
    assert list(age.probabilities.values()) == pytest.approx(band_probabilities(years, 11.0).tolist(), abs=1e-4)
    gender = GenderClassifier(GenderConfig(model=model, min_probability=0.5))([clip])[0].value
    assert gender is not None and gender.female == pytest.approx(genders[0] / (genders[0] + genders[1]), abs=1e-4)


def test_an_age_in_years_is_surer_of_its_band_far_from_the_next() -> None:
    names = ("child", "young", "middle-aged", "elderly")
    for years, band in ((5, "child"), (25, "young"), (50, "middle-aged"), (80, "elderly")):
        probabilities = band_probabilities(years, 11.0)
        assert names[int(probabilities.argmax())] == band and probabilities.sum() == pytest.approx(1)
    assert band_probabilities(44, 11.0).max() < 0.6 < band_probabilities(44, 3.0).max()


def test_without_one_of_the_heads_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="age.model=.*lack weights such as gender"):
        AgeClassifier(AgeConfig(model=save_age_gender(tmp_path / "half", without="gender.")))
