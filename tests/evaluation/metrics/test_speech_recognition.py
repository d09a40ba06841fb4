"""The recogniser of scores against transformers' Whisper, which the official scripts call, on the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from evaluation.metrics import error_rates
from evaluation.metrics.repetition import Repetition, repetition
from evaluation.metrics.speech_recognition import Recognition, RecognitionConfig, recogniser_name
from samples.fabricate import cut, turns
from tests.support.whisper_in_transformers import save_whisper

TEXT = "Please check the number and dial again."


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Float32 at 16 kHz: a sentence, and the same four times over."""
    folder = tmp_path_factory.mktemp("clips")
    start, end, text = turns("en-2", 2)[1]
    assert text == TEXT
    samples, rate = soundfile.read(cut("en-2", start, end, folder / "one.wav"), dtype="float32")
    assert rate == 16000
    pause = np.zeros(rate // 5, dtype=np.float32)
    return {"once": samples, "four times": np.concatenate([samples, pause] * 4)}


def test_transcripts_are_those_of_the_official_scripts_call(clips: dict[str, np.ndarray], tmp_path: Path) -> None:
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

    folder = save_whisper(tmp_path / "whisper")
    model: Any = WhisperForConditionalGeneration.from_pretrained(folder)
    extractor: Any = WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer: Any = WhisperTokenizer.from_pretrained(folder)
    # The embedded weights are 16-bit floats: as such both have the same, without int8's rounding.
    ours = Recognition(RecognitionConfig(compute_type="float32")).of("en")
    heard = {}
    for name, samples in clips.items():
        features = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
        tokens = model.generate(features, language="en", task="transcribe")
        heard[name] = ours(samples, "en")
        assert heard[name] == tokenizer.decode(tokens[0], skip_special_tokens=True).strip(), name
    errors = {name: error_rates.score(text, TEXT, "en", "seed-tts-eval") for name, text in heard.items()}
    # Said four times, the sentence has been inserted three times: 300 %, in both modes, and a clip that repeats.
    for mode in ("official", "strict"):
        assert getattr(errors["once"], mode).rate == 0.0 and getattr(errors["four times"], mode).rate == 3.0
    said_again = {name: repetition(text, TEXT, "en") for name, text in heard.items()}
    assert said_again["once"] == Repetition(repeated=0, length_ratio=1.0)
    assert said_again["four times"] == Repetition(repeated=19, length_ratio=4.0)


def test_a_language_that_the_weights_do_not_know_is_not_refused(clips: dict[str, np.ndarray]) -> None:
    recognition = Recognition(RecognitionConfig())
    # Whisper base knows no `yue`; a dialect goes by its language, and a language without a code by what is heard.
    assert recognition.of("zh-yue")(clips["once"], "zh-yue")
    assert "number" in recognition.of("tlh")(clips["once"], "tlh")


def test_its_name_says_how_it_decodes() -> None:
    greedy, beams = (recogniser_name(RecognitionConfig(beam_size=size), "en") for size in (1, 5))
    assert greedy.name == "Whisper base (embedded)" and beams.name == "Whisper base (embedded), 5 beams"
    assert greedy.identity != beams.identity
