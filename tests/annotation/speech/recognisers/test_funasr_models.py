"""FunASR: its answers in the form that its models give them, and its own code on weights drawn at random."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.speech.recognisers.config import FunasrConfig
from annotation.speech.recognisers.funasr_models import FunasrRecogniser, piece_text
from annotation.speech.recognisers.pieces import PieceText, TimedWord
from samples.turns import sample_turns
from tests.support.saved_funasr import save_paraformer, save_sense_voice
from voxmill.core.errors import UserError


@pytest.mark.parametrize(
    ("said", "text", "words"),
    [
        # Paraformer with time stamps: characters and words apart, milliseconds.
        (
            {"text": "我 用 python 写", "timestamp": [[0, 200], [200, 400], [430, 900], [900, 1100]]},
            "我用python写",
            [("我", 0.0, 0.2), ("用", 0.2, 0.4), ("python", 0.43, 0.9), ("写", 0.9, 1.1)],
        ),
        # The same, punctuated afterwards.
        (
            {
                "text": "你好，世界。",
                "raw_text": "你 好 世 界",
                "timestamp": [[0, 90], [90, 200], [300, 400], [400, 5000]],
            },
            "你好，世界。",
            [("你", 0.0, 0.09), ("好", 0.09, 0.2), ("世", 0.3, 0.4), ("界", 0.4, 2.0)],
        ),
        # SenseVoice, with its tags; words are given beside the text.
        (
            {
                "text": "<|en|><|HAPPY|><|Speech|><|withitn|>Good morning.",
                "timestamp": [[60, 300], [300, 720]],
                "words": ["Good", "morning"],
            },
            "Good morning.",
            [("Good", 0.06, 0.3), ("morning", 0.3, 0.72)],
        ),
        ({"text": "<|ko|><|NEUTRAL|><|Speech|><|withitn|>안녕하세요 여러분"}, "안녕하세요 여러분", None),
        # As many times as words, or none count.
        ({"text": "你 好", "timestamp": [[0, 90]]}, "你好", None),
        ({"text": "<|nospeech|><|EMO_UNKNOWN|><|BGM|><|woitn|>"}, "", []),
        ({"text": ""}, "", []),
        ({"text": "a < b |> c"}, "a < b |> c", None),
        # Times that run back, as ones of overlong pieces do.
        ({"text": "a b", "timestamp": [[500, 700], [100, 200]]}, "a b", [("a", 0.5, 0.7), ("b", 0.5, 0.5)]),
    ],
)
def test_answers_are_read_as_they_come(
    said: dict[str, Any], text: str, words: list[tuple[str, float, float]] | None
) -> None:
    expected = None if words is None else tuple(TimedWord(word=w, start=a, end=b) for w, a, b in words)
    assert piece_text(said, 2.0) == PieceText(text=text, words=expected)


def test_the_published_code_loads_and_runs_both_kinds_of_model(tmp_path: Path) -> None:
    """Weights drawn at random, in the layout of `iic/SenseVoiceSmall` and of `paraformer-zh`."""
    pytest.importorskip("funasr", reason="pip install voxmill[funasr]")
    audio = next(turn.audio for turn in sample_turns() if turn.language == "en")
    for save, kind in ((save_sense_voice, "sensevoice ctc"), (save_paraformer, "paraformer")):
        heard = FunasrRecogniser(save(tmp_path / kind), FunasrConfig())
        first = heard([audio, np.zeros(16_000, np.float32), audio[:8_000]], ["zh", "zh", "zh-sichuan"])
        assert heard.aligner == kind and first[0].text and heard([audio], ["zh"]) == first[:1]
        for one in first:
            assert one.words is None or all(0 <= word.start <= word.end <= 3 for word in one.words)
        if kind == "sensevoice ctc":
            assert heard([audio], ["fr"]) == [PieceText(text="", words=())]


def test_weights_that_are_not_there_or_not_whole_are_refused(tmp_path: Path) -> None:
    """FunASR prints a line about it and goes on with what it has drawn at random."""
    pytest.importorskip("funasr", reason="pip install voxmill[funasr]")
    import torch

    folder = Path(save_sense_voice(tmp_path / "model"))
    weights = torch.load(folder / "model.pt", weights_only=True)
    del weights["ctc.ctc_lo.weight"]
    torch.save(weights, folder / "model.pt")
    with pytest.raises(UserError, match=r"its weights lack 1 tensors, such as ctc\.ctc_lo\.weight"):
        FunasrRecogniser(str(folder), FunasrConfig())
    (folder / "model.pt").unlink()
    for name in (str(folder), str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match="FunASR cannot load it"):
            FunasrRecogniser(name, FunasrConfig())
