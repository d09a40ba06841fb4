"""emotion2vec+ against FunASR's code (1.4.16), which was run once on drawn weights: see EXPECTED. The real weights were
not at hand."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from annotation.voice.emotion import EmotionClassifier, EmotionConfig
from annotation.voice.emotion2vec import Emotion2vec, convolutions
from tests.evaluation.metrics.encoders.drawn_weights import wave
from tests.support.saved_classifier import save_emotion2vec
from voxmill.core.errors import UserError

SIZES: dict[str, dict[str, Any]] = {"base": {}, "large": {"heads": 16, "prenet": 1, "per_head": False}}
# Probabilities of the nine classes for `wave(1.3)` by the published code on `drawn` weights, at 12 and at 16 heads.
EXPECTED = {
    "base": [0.255399, 0.060643, 0.135655, 0.071611, 0.057023, 0.046534, 0.263808, 0.08806, 0.021268],
    "large": [0.138538, 0.158713, 0.192655, 0.081926, 0.028928, 0.033336, 0.230817, 0.074077, 0.061009],
}
# Of the published plus_base: the first and last of its 170 or so tensors that inference reads.
NAMES = {
    "modality_encoders.AUDIO.alibi_scale",
    "modality_encoders.AUDIO.extra_tokens",
    "modality_encoders.AUDIO.local_encoder.conv_layers.6.0.weight",
    "modality_encoders.AUDIO.local_encoder.conv_layers.6.2.1.bias",
    "modality_encoders.AUDIO.project_features.2.weight",
    "modality_encoders.AUDIO.relative_positional_encoder.5.0.bias",
    "modality_encoders.AUDIO.context_encoder.norm.weight",
    "modality_encoders.AUDIO.context_encoder.blocks.1.attn.qkv.weight",
    "blocks.1.mlp.fc2.bias",
    "proj.weight",
}


@pytest.mark.parametrize("name", ["base", "large"])
def test_it_answers_as_the_published_code(tmp_path: Path, name: str) -> None:
    folder = save_emotion2vec(tmp_path / name, **SIZES[name])
    scores = Emotion2vec(Path(folder), "cpu")(wave(1.3))
    assert scores.tolist() == pytest.approx(EXPECTED[name], abs=2e-6)
    if name == "base":
        assert set(torch.load(Path(folder) / "model.pt", weights_only=True)["model"]) >= NAMES


def test_the_emotion_labeller_reads_funasrs_folder(tmp_path: Path) -> None:
    folder = Path(save_emotion2vec(tmp_path / "model"))
    emotion = EmotionClassifier(EmotionConfig(model=str(folder)))([wave(1.3)])[0].measured
    assert emotion is not None and emotion.label == "sad"
    assert list(emotion.probabilities) == [
        "angry",
        "disgusted",
        "fearful",
        "happy",
        "neutral",
        "other",
        "sad",
        "surprised",
        "unknown",
    ]
    # A class that is not in use takes part in nothing.
    tokens = folder / "tokens.txt"
    tokens.write_text(tokens.read_text(encoding="utf-8").replace("难过/sad", "unuse_0"), encoding="utf-8")
    scores = Emotion2vec(folder, "cpu")(wave(1.3))
    used = np.delete(EXPECTED["base"], 6)
    assert scores.tolist() == pytest.approx((used / used.sum()).tolist(), abs=2e-6)


class Code:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_what_is_no_such_model_is_named_and_nothing_is_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(save_emotion2vec(tmp_path / "model"))
    weights = (folder / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(pickle.dumps({"model": Code()}))
    with pytest.raises(UserError, match="model.pt: "):
        Emotion2vec(folder, "cpu")
    (folder / "model.pt").write_bytes(weights)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    audio = config["model_conf"]["modalities"]["audio"]
    for value in ("print('ran')", "[(32, 10, 5)] * 999999999", "[(1,2)]", "(" * 5000):
        audio["feature_encoder_spec"] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(UserError, match="is no list of convolutions"):
            EmotionClassifier(EmotionConfig(model=str(folder)))
    (folder / "config.yaml").write_text("model: SenseVoiceSmall\n")
    with pytest.raises(UserError, match="of SenseVoiceSmall, not of Emotion2vec"):
        EmotionClassifier(EmotionConfig(model=str(folder)))
    assert "ran" not in capsys.readouterr().out


def test_convolutions_are_read_as_published() -> None:
    published = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
    assert convolutions(published) == [(512, 10, 5), *[(512, 3, 2)] * 4, (512, 2, 2), (512, 2, 2)]
