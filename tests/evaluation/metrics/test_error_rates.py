"""Error rates against what the official script returned, and the strict mode's own rules."""

import json
from pathlib import Path

import pytest

from evaluation.metrics import error_rates
from evaluation.metrics.normalisation import PROTOCOLS, official_hypothesis, strict

PAIRS = Path(__file__).parents[2] / "data" / "process_one" / "pairs.jsonl"


def test_official_errors_are_what_the_published_script_returned_for_every_pair() -> None:
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").split("\n") if line]
    assert len(pairs) >= 500 and sum(pair["rate"] is None for pair in pairs) >= 10
    for pair in pairs:
        errors = error_rates.official_errors(
            pair["hypothesis"], pair["reference"], by_character=pair["language"] == "zh"
        )
        if pair["rate"] is None:
            assert errors is None, pair
            continue
        assert errors is not None and errors.rate == pair["rate"], pair
        if errors.length and "substitutions" in pair and pair["substitutions"]:
            # The script divides by its own count of words, which counts empty ones too: only the shares compare.
            assert errors.substitutions * pair["deletions"] == pytest.approx(errors.deletions * pair["substitutions"])
            assert errors.substitutions * pair["insertions"] == pytest.approx(errors.insertions * pair["substitutions"])


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("It\u2019s well-known, and/or NOT!", "en", "it's well known and or not"),
        ("'tis rock 'n' roll", "en", "tis rock n roll"),
        ("Ｈｅｌｌｏ　１２３", "en", "hello 123"),
        ("Straße", "de", "strasse"),
        ("今天，天氣很好。", "zh", "今 天 天 气 很 好"),
        ("สวัสดี ครับ", "th", "ส ว ั ส ด ี ค ร ั บ"),
        ("नमस्ते।", "hi", "न म स ् त े"),
        ("AI模型 v2", "zh", "a i 模 型 v 2"),
        ("😀 … —", "en", ""),
        ("a\u200bb", "en", "ab"),
    ],
)
def test_strict_text(text: str, language: str, expected: str) -> None:
    assert strict(text, language) == expected


def test_a_reference_without_units_is_none_officially_and_counts_insertions_strictly() -> None:
    errors = error_rates.score("oh no", "...", "en", "seed-tts-eval")
    assert errors.official is None and errors.strict == error_rates.Errors(0, 0, 2, 0) and errors.strict.rate == 1.0
    assert error_rates.score("", "?!", "en", "texts").strict.rate == 0.0
    # An empty hypothesis is all wrong in both modes.
    silent = error_rates.score("", "two words", "en", "seed-tts-eval")
    assert silent.official == error_rates.Errors(0, 2, 0, 2) == silent.strict


def test_traditional_characters_are_no_errors_and_units_follow_the_protocol() -> None:
    assert official_hypothesis("繁體中文", "zh") == "繁体中文" and official_hypothesis("繁體", "ja") == "繁體"
    errors = error_rates.score("今天天氣很好", "今天天气很好。", "zh", "seed-tts-eval")
    assert errors.official == error_rates.Errors(0, 0, 0, 6) == errors.strict
    assert set(PROTOCOLS) >= {"seed-tts-eval", "cv3-eval", "minimax-mls", "thirty-languages"}
    assert error_rates.unit_name("cv3-eval", "ko", "official") == "CER"
    assert error_rates.unit_name("cv3-eval", "ru", "official") == "WER"
    assert error_rates.unit_name("minimax-mls", "ar", "official") == "WER"
    assert error_rates.unit_name("minimax-mls", "ar", "strict") == "CER"
    assert error_rates.unit_name("minimax-mls", "zh-yue", "official") == "CER"


def test_alignment_shows_what_was_recognised_instead() -> None:
    pieces = error_rates.aligned("please press start now", "Please press star, now or never.", "en")
    assert [(p.kind, p.reference, p.hypothesis) for p in pieces] == [
        ("equal", "please press", "please press"),
        ("substitute", "star", "start"),
        ("equal", "now", "now"),
        ("delete", "or never", ""),
    ]
    missing = error_rates.all_wrong("Please press star.", "en")
    assert missing == error_rates.Errors(0, 3, 0, 3)
    assert error_rates.corpus_rate([missing, error_rates.Errors(0, 0, 0, 3)]) == 0.5
