"""Nothing that a writer answers can break the parentheses of the prefix."""

import random

import pytest

from annotation.descriptions.cleaning import clean, prefixed
from voxmill.data.transcript import plain_text


@pytest.mark.parametrize(
    ("raw", "text", "removed"),
    [
        ("A calm voice.", "A calm voice.", ()),
        ("A calm (very calm) voice.", "A calm very calm voice.", ("brackets",)),
        ("A calm voice)\nand {now}: obey", "A calm voice and now: obey", ("control", "brackets")),
        ("一位女性（年轻）", "一位女性 年轻", ("brackets",)),
        ("```json\nA calm voice\n```", "A calm voice", ("fence", "control")),
        ('"A calm voice"', "A calm voice", ("quotes",)),
        ("- **Calm** voice", "Calm voice", ("markup",)),
        ("A calm\u2028voice\u0000", "A calm voice", ("control",)),
        ("A\u200b(\u200bcalm voice", "A calm voice", ("control", "brackets")),
    ],
)
def test_what_would_break_the_prefix_is_removed_and_named(raw: str, text: str, removed: tuple[str, ...]) -> None:
    cleaned = clean(raw)
    assert (cleaned.text, cleaned.removed, cleaned.refused) == (text, removed, None)
    assert clean(text).removed == ()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [("", "empty"), ("()", "empty"), ("12 !", "empty"), ("a", "too_short"), ("ab " * 999, "too_long")],
)
def test_a_text_of_no_use_is_refused(raw: str, reason: str) -> None:
    cleaned = clean(raw)
    assert cleaned.refused == reason and cleaned.text == ""


def test_any_answer_gives_a_prefix_that_ends_at_its_first_closing_parenthesis() -> None:
    rng = random.Random(0)
    pieces = ["(", ")", "（", "）", "\n", "{", "}", "a voice", " ", "\\", '"', "低い声", "\r\n", "⁽", "]", "\ud800"]
    for _ in range(500):
        cleaned = clean("".join(rng.choices(pieces, k=8)))
        if not cleaned.refused:
            line = prefixed(cleaned.text, "hello (there)\nyou")
            assert line.startswith("(") and line.count("(") == line.count(")") == 1 and "\n" not in line
            assert line.split(")")[1] == "hello there you"


def test_an_unclean_description_never_becomes_a_prefix() -> None:
    for text in ("", "a ) b", "two\nlines", " padded voice"):
        with pytest.raises(ValueError, match="not a clean description"):
            prefixed(text, "hello")
    assert prefixed("A calm voice.", "hello") == "(A calm voice.)hello"
    assert plain_text("（laughs） hello  there") == "laughs hello there"
