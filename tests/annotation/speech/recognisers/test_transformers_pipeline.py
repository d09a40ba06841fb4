"""Recognisers of transformers: the embedded Whisper's own weights in its layout, and random CTC models against it."""

import re
from pathlib import Path

import numpy as np
import pytest

from annotation.speech.recognisers.pieces import PieceText
from annotation.speech.recognisers.transformers_pipeline import TransformersRecogniser
from annotation.speech.text_checks import error_rate
from samples.turns import Turn, sample_turns
from tests.support.saved_classifier import save_classifier
from tests.support.saved_recogniser import save_ctc
from tests.support.whisper_in_transformers import save_whisper
from voxmill.core.errors import UserError


@pytest.fixture(scope="module")
def turn() -> Turn:
    return next(turn for turn in sample_turns() if turn.language == "en")


@pytest.mark.slow
def test_whisper_writes_places_words_and_knows_its_languages(tmp_path: Path, turn: Turn) -> None:
    heard = TransformersRecogniser(save_whisper(tmp_path / "whisper"), prompt="Telephone menus.")
    said, unknown = heard([turn.audio, turn.audio], ["en", "eo"])
    assert error_rate(turn.text, said.text, "en") == 0.0 and heard.aligner == "whisper of transformers"
    assert said.words is not None and "".join(word.word for word in said.words).strip() == said.text
    starts = [word.start for word in said.words]
    assert starts == sorted(starts) and 1.5 < said.words[-1].end <= len(turn.audio) / 16000
    assert said.mean_log_probability is None and {word.probability for word in said.words} == {None}
    # Asked in a language that it does not know, Whisper would write what it likes.
    assert unknown == PieceText(text="", words=())


@pytest.mark.parametrize(("characters", "language"), [("ESTANO", "en"), ("的一是不", "zh")])
def test_ctc_texts_and_times_are_those_of_the_published_code(
    tmp_path: Path, turn: Turn, characters: str, language: str
) -> None:
    import torch
    from transformers import AutoModelForCTC, AutoProcessor

    path = save_ctc(tmp_path / "ctc", characters)
    pieces = [turn.audio, turn.audio[:24_000]]
    texts = TransformersRecogniser(path)(pieces, [language] * 2)
    model, processor = AutoModelForCTC.from_pretrained(path).eval(), AutoProcessor.from_pretrained(path)  # type: ignore[no-untyped-call]
    for piece, own in zip(pieces, texts, strict=True):
        with torch.no_grad():
            logits = model(**processor(piece, sampling_rate=16_000, return_tensors="pt")).logits
        (tokens,) = logits.argmax(-1)
        decoded = processor.tokenizer.decode(tokens, output_char_offsets=True, output_word_offsets=True)
        unit = "char" if language == "zh" else "word"
        offsets = [(plain(one[unit]), one["start_offset"] * 0.02) for one in decoded[f"{unit}_offsets"]]
        offsets = [one for one in offsets if one[0].strip()]
        assert own.text == " ".join(plain(decoded["text"]).split()) and len(own.text) > 3 and "<" not in own.text
        assert own.words is not None and [word.word for word in own.words] == [word for word, _ in offsets]
        np.testing.assert_allclose([word.start for word in own.words], [start for _, start in offsets], atol=1e-6)


def plain(text: str) -> str:
    """Without the tokens that stand for no character."""
    return re.sub("<(unk|s|/s|pad)>", "", text)


def test_what_is_no_recogniser_for_this_is_refused(tmp_path: Path) -> None:
    for path, prompt, message in (
        (save_ctc(tmp_path / "mms", "AB", adapter=True), None, "has an adapter for each language"),
        (save_ctc(tmp_path / "ctc", "AB"), "Hello", "takes none, only Whisper does"),
        (save_classifier(tmp_path / "classifier", ["a", "b"]), None, "cannot load it as a recogniser"),
        (str(tmp_path), None, "cannot load it as a recogniser"),
    ):
        with pytest.raises(UserError, match=message):
            TransformersRecogniser(path, prompt)
