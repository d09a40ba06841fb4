"""Error rates against what the official script returned, and the strict mode's own rules."""

import json
from pathlib import Path

import pytest

from evaluation.metrics import error_rates
from evaluation.metrics.normalisation import PROTOCOLS, normaliser_of, script_folded, strict
from voxmill.data.languages import DIALECTS, LANGUAGES

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
        ("It\u2019s well-known, and/or NOT!", "en", "it is well known and or not"),
        ("'tis rock 'n' roll", "en", "tis rock n roll"),
        ("Ｈｅｌｌｏ　１２３", "en", "hello 123"),
        ("Straße", "de", "strasse"),
        ("今天，天氣很好。", "zh", "今 天 天 气 很 好"),
        ("สวัสดี ครับ", "th", "ส ว ั ส ด ี ค ร ั บ"),
        ("नमस्ते।", "hi", "न म स ् त े"),
        ("AI模型 v2", "zh", "a i 模 型 v 2"),
        ("😀 … —", "en", ""),
        # Contractions, titles and numbers by Whisper's normaliser; a bracket's text is spoken, so is a hesitation.
        ("We'd seen Dr. Who (twice), um...", "en", "we would seen doctor who twice um"),
        ("Fifty of 1,250 won, i.e. four percent: $2.50!", "en", "50 of 1250 won i e 4% $2.50"),
        ("v2.0-rc1 is 10% off.", "en", "v 2 rc one is 10% off"),
        # Digits of other scripts; number words of other languages stay.
        ("٢٥ و२५", "ar", "2 5 و 2 5"),
        ("zweiundfünfzig 52", "de", "zweiundfünfzig 52"),
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
    assert script_folded("繁體中文", "zh") == "繁体中文" and script_folded("繁體", "ja") == "繁體"
    errors = error_rates.score("今天天氣很好", "今天天气很好。", "zh", "seed-tts-eval")
    assert errors.official == error_rates.Errors(0, 0, 0, 6) == errors.strict
    assert set(PROTOCOLS) >= {"seed-tts-eval", "cv3-eval", "minimax-mls", "thirty-languages"}
    assert error_rates.unit_name("cv3-eval", "ko", "official") == "CER"
    assert error_rates.unit_name("cv3-eval", "ru", "official") == "WER"
    assert error_rates.unit_name("minimax-mls", "ar", "official") == "WER"
    assert error_rates.unit_name("minimax-mls", "ar", "strict") == "CER"
    assert error_rates.unit_name("minimax-mls", "zh-yue", "official") == "CER"


MODES = [(protocol, language) for protocol in PROTOCOLS for language in (*LANGUAGES, *DIALECTS)]
TEXTS = [
    "显著的进步，专著和土著。",
    "顯著的進步，專著和土著；看著乾坤，藉口頭髮。",
    "佢哋話今日會去飲茶，裏面有冇人？",
    "It's fifty-two, isn't it? $1,000.50 (one) 25% — 3rd, o'clock 'n' so on",
    "İstanbul’da Straße ﬁn ﬀ Å",
    "สวัสดีครับ นะ ๒๕๖๗ नमस्ते २५। ١٢٣ ၁၂၃ 안녕하세요 カタカナ ﾊﾝｶｸ",
]


def test_identical_texts_have_no_errors_in_any_language_script_and_mode() -> None:
    for protocol, language in MODES:
        for text in TEXTS:
            errors = error_rates.score(text, text, language, protocol)
            assert errors.official and errors.official.total == 0 == errors.strict.total, (protocol, language, text)
            assert errors.official.length > 0 < errors.strict.length
    # Python refuses to convert numbers of so many digits.
    assert error_rates.score("9" * 5000, "9" * 5000, "en", "texts").strict == error_rates.Errors(0, 0, 0, 1)


@pytest.mark.parametrize(
    ("traditional", "simplified"),
    [
        # Article 1 of the declaration of human rights as the United Nations have it in both scripts.
        (
            "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神相對待。",
            "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
        ),
        # Taiwan's 著 where the mainland has 着 or 著, and words whose parts have several simplified forms.
        ("為什麼他看著窗外？著名的專著在桌上，顯著。", "为什么他看着窗外？著名的专著在桌上，显著。"),
        ("乾淨的乾坤，瞭解藉口，頭髮發現，皇后後來。", "干净的乾坤，了解借口，头发发现，皇后后来。"),
        # Cantonese as Hong Kong and Taiwan write it.
        ("佢哋話今日會去飲茶，裏面有冇人？", "佢哋话今日会去饮茶，里面有冇人？"),
        ("佢說裡面冇人，眾人喺牀上。", "佢説裏面冇人，衆人喺床上。"),
    ],
)
def test_a_chinese_text_in_the_other_script_has_no_errors(traditional: str, simplified: str) -> None:
    for protocol, language in [one for one in MODES if one[1].startswith("zh")]:
        for hypothesis, reference in ((traditional, simplified), (simplified, traditional)):
            errors = error_rates.score(hypothesis, reference, language, protocol)
            assert errors.official and errors.official.total == 0 == errors.strict.total


@pytest.mark.parametrize(
    ("heard", "written"),
    [
        # What seed-tts-eval's users met (its issue 12).
        ("The primary coil has 50 turns.", "The primary coil has fifty turns."),
        ("My grandmother has type 1 diabetes.", "My grandmother has Type One diabetes."),
        ("50 people, 21 of them", "Fifty people, twenty-one of them."),
        ("I cannot, it is, we will, they have", "I can't, it's, we'll, they've"),
        (
            "In 1987, 3.5 percent of $1,000,000",
            "In nineteen eighty-seven, three point five percent of one million dollars",
        ),
        ("1, 2, 3: 4 - go", "one, two, three: four — go"),
        ("Doctor Smith's 2nd visit", "Dr. Smith's second visit"),
    ],
)
def test_numbers_and_contractions_are_errors_officially_and_none_strictly(heard: str, written: str) -> None:
    errors = error_rates.score(heard, written, "en", "seed-tts-eval")
    assert errors.official and errors.official.total > 0 == errors.strict.total
    assert "transformers" in normaliser_of("en") and "as they are" in normaliser_of("de")
    # What was said wrong stays wrong.
    assert error_rates.score("15 people, um (sic)", "Fifty people", "en", "texts").strict == error_rates.Errors(
        1, 0, 2, 2
    )


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
