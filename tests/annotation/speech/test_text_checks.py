"""Signs of a wrong transcript on texts that people would judge the same way."""

import pytest

from annotation.speech.text_checks import (
    compression_ratio,
    error_rate,
    repeated_ngram,
    text_language,
    token_spans,
    tokens,
)
from annotation.speech.transcription import Transcript


def test_a_loop_shows_in_every_sign() -> None:
    loop = "thank you for watching " * 20
    assert compression_ratio(loop) > 2.4
    assert repeated_ngram(loop, "en") > 0.2
    plain = "please enter your password followed by the pound key"
    assert compression_ratio(plain) < 2.4 and repeated_ngram(plain, "en") == 0.0


@pytest.mark.parametrize(
    ("text", "language"),
    [("Composez votre mot de passe suivi du dièse", "fr"), ("Пожалуйста, введите пароль", "ru"), ("请输入密码", "zh")],
)
def test_the_language_of_a_text(text: str, language: str) -> None:
    code, probability = text_language(text)
    assert code == language and probability > 0.5


def test_empty_text_is_measured_not_refused() -> None:
    checks = Transcript(text="").check("en", 3.0)
    assert (checks.text_language, checks.characters_per_second) == ("", 0.0)


def test_words_keep_their_places_in_the_text() -> None:
    text = "“It’s 5 p.m.”, said Ann-Marie — ŒUVRE ½."
    spans = token_spans(text, "en")
    assert [form for form, _, _ in spans] == ["it's", "5", "p", "m", "said", "ann", "marie", "œuvre", "12"]
    assert [text[start:end] for _, start, end in spans][-2:] == ["ŒUVRE", "½"] and text[slice(*spans[0][1:])] == "It’s"
    assert token_spans("请，输入！", "zh-yue") == [("请", 0, 1), ("输", 2, 3), ("入", 3, 4)]
    assert token_spans("…", "en") == []
    plain = "please enter your password, followed by the pound key"
    assert [form for form, _, _ in token_spans(plain, "en")] == tokens(plain, "en")


def test_error_rate_counts_words_or_characters() -> None:
    assert error_rate("Press one, please!", "press one please", "en") == 0.0
    assert error_rate("press one please", "press two please", "en") == pytest.approx(1 / 3)
    assert error_rate("请输入密码", "请输入号码", "zh") == pytest.approx(1 / 5)
    assert error_rate("請輸入密碼", "请输入密码", "zh-yue") == 0.0
    assert error_rate("...", "a", "en") is None
    assert error_rate("a", "", "en") == 1.0
