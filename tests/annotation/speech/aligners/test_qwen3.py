"""Qwen3-ForcedAligner on drawn weights against its published code (qwen-asr 0.0.6), which was run once: see EXPECTED.

The published code without FlashAttention attends over all of a clip, with it over windows of 8 s, as transformers does:
on clips within a window all are the same.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.speech.aligners.aligner import SpokenClip
from annotation.speech.aligners.qwen3 import Qwen3Aligner
from tests.annotation.speech.aligners.saved_qwen3 import TIMESTAMP, save_published
from tests.evaluation.metrics.encoders.drawn_weights import wave
from voxmill.core.errors import UserError
from voxmill.data.records import Word

# Seconds of `wave`, frames of a window, words; three logits each of the first and last timestamp, and the norm of all.
EXPECTED = [
    (3.3, 800, "Well don't hurry so", [-0.65527, 0.740344, -0.263189, -0.168886, 0.829974, -0.074456, 20.967186]),
    (12.7, 1600, "one two 3", [-0.508599, 0.698682, -0.297293, -0.562268, 0.653605, -0.309453, 18.101807]),
]


def load(folder: Path, name: str = "tiny") -> Qwen3Aligner:
    return Qwen3Aligner(name, str(folder), device="cpu", threads=1)


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Qwen3Aligner:
    folder = tmp_path_factory.mktemp("qwen3")
    save_published(folder)
    return load(folder)


@pytest.mark.parametrize(("seconds", "window_frames", "words", "expected"), EXPECTED)
def test_timestamps_are_those_of_the_published_code(
    seconds: float, window_frames: int, words: str, expected: list[float], tmp_path: Path
) -> None:
    save_published(tmp_path, window_frames)
    logits, ids = load(tmp_path).logits(wave(seconds), words.split())
    marked = logits[ids == TIMESTAMP]
    assert len(marked) == 2 * len(words.split())
    own = [*marked[0, :3].tolist(), *marked[-1, :3].tolist(), float(marked.norm())]
    assert own == pytest.approx(expected, abs=1e-4)


def test_the_layout_of_transformers_gives_the_same(aligner: Qwen3Aligner, tmp_path: Path) -> None:
    from transformers import Qwen3ASRForTokenClassification

    models: Any = Qwen3ASRForTokenClassification
    model = models(aligner._model.config)
    model.load_state_dict(aligner._model.state_dict())
    model.save_pretrained(tmp_path)
    aligner._processor.save_pretrained(tmp_path)
    (logits, _), (again, _) = aligner.logits(wave(2.0), ["a"]), load(tmp_path).logits(wave(2.0), ["a"])
    np.testing.assert_array_equal(logits.numpy(), again.numpy())


def test_weights_of_half_precision_are_read(tmp_path: Path) -> None:
    """As Qwen's are; an input in single precision met them and broke."""
    from safetensors.torch import load_file, save_file

    save_published(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(weights).items()}, weights)
    logits, ids = load(tmp_path).logits(wave(3.3), ["Well", "don't", "hurry", "so"])
    expected = EXPECTED[0][3]
    assert logits[ids == TIMESTAMP][0, :3].tolist() == pytest.approx(expected[:3], abs=0.02)


def test_words_have_the_times_that_the_model_names(aligner: Qwen3Aligner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word without letters has none of its own; one that the model ends before it begins is put in order."""
    logits, ids = aligner.logits(wave(3.0), ["Well", "don't", "so"])
    logits = logits.clone()
    for place, step in zip((ids[0] == TIMESTAMP).nonzero()[:, 0].tolist(), (5, 10, 15, 2, 25, 30), strict=True):
        logits[0, place, step] = 100.0
    monkeypatch.setattr(aligner, "logits", lambda *_: (logits, ids))
    words = tuple(Word(word, 0.0, 0.0, 0.5) for word in ("Well,", "don't", "-", "so."))
    loud = np.random.default_rng(1).standard_normal(48000).astype(np.float32)
    (aligned,) = aligner.align([SpokenClip(loud, words, "en")])
    assert aligned is not None and aligned.between == 1
    assert [word.start for word in aligned.words] == [0.4, 1.2, 1.2, 2.0]
    assert [word.word for word in aligned.words] == ["Well,", "don't", "-", "so."]


@pytest.mark.parametrize(
    ("words", "language", "seconds"),
    [(("...", "!"), "en", 2.0), ((), "en", 2.0), (("one",), "sw", 2.0), (("one",), "en", 301.0), (("one",), "en", 0.0)],
)
def test_what_the_model_cannot_place_stays_as_it_is(
    aligner: Qwen3Aligner, words: tuple[str, ...], language: str, seconds: float
) -> None:
    said = tuple(Word(word, 0.0, 0.0, 0.5) for word in words)
    assert aligner.align([SpokenClip(np.zeros(round(seconds * 16000), np.float32), said, language)]) == [None]


def test_a_recogniser_in_place_of_an_aligner_is_named(tmp_path: Path) -> None:
    save_published(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"classify_num": 50, ', ""))
    with pytest.raises(UserError, match="classify_num"):
        load(tmp_path)
