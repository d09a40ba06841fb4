"""Signs of a wrong transcript on texts that people would judge the same way."""

import pytest

from annotation.speech.text_checks import (
    compression_ratio,
    error_rate,
    error_rate_within,
    repeated_ngram,
    text_language,
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


def test_a_clip_is_compared_with_its_own_part_of_a_given_text() -> None:
    given = "one two three four five six seven eight nine ten eleven twelve"
    for text, right in (
        ("Four five six.", 0.0),
        ("who are you", 1.0),
        ("two four five", 1 / 3),
        ("five five six", 1 / 3),
        ("eleven twelve thirteen", 1 / 3),
        ("", 1.0),
        (given, 0.0),
    ):
        assert error_rate_within(given, text, "en") == pytest.approx(right), text
    assert error_rate_within("我不知道你在说什么", "说是么", "zh") == pytest.approx(1 / 3)
    assert error_rate_within("...", "one", "en") is None
    # Words that happen to stand in a long text, but far apart, are not that text.
    far = "the cat sat on a mat and then the dog ran over to the house of the man who had a red hat on"
    rate = error_rate_within(far, "the dog had a mat on the house", "en")
    assert rate is not None and rate >= 0.5


def test_error_rate_counts_words_or_characters() -> None:
    assert error_rate("Press one, please!", "press one please", "en") == 0.0
    assert error_rate("press one please", "press two please", "en") == pytest.approx(1 / 3)
    assert error_rate("请输入密码", "请输入号码", "zh") == pytest.approx(1 / 5)
    assert error_rate("...", "a", "en") is None
    assert error_rate("a", "", "en") == 1.0
