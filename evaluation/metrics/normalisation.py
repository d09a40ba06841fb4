"""Texts as error rates compare them, in two modes that are always both shown.

`official` follows each benchmark's published scorer: Seed-TTS-Eval removes zhon's and ASCII's punctuation one by one
except apostrophes, then doubled spaces once, then lowers English and splits Chinese into characters; what jiwer splits
into words after that is compared. CV3-Eval does the same with characters for Chinese, Japanese and Korean. MiniMax-MLS
and the 30-language set have no official scorer: here it is the same removal, characters for the languages named below.

`strict` is Unicode's view, the same for every benchmark: NFKC, case folded, decimal digits of any script as ASCII's,
punctuation and symbols gone except apostrophes inside words, characters for the character-based languages of report
Table 8. English contractions and numbers are written out as Whisper's own normaliser does (of transformers: "it's" is
"it is", "fifty" is "50"), without its removal of brackets, of hesitations and of accents, which would hide errors.

In both, Chinese is folded into one script, hypothesis and reference alike.
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from voxmill.data.languages import CHARACTER_BASED, base_language
from voxmill.data.scripts import in_script, script_blind

if TYPE_CHECKING:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

NORMALISER_VERSION = "2"
"""Stands in every cached score's key: raise it with any change below that changes a score."""
NUMERIC_SYMBOLS = ".%$¢€£"
"""Symbols that mean something beside a digit, as Whisper's normaliser has them."""
PHRASE_ENDS = re.compile(r"[.,;:](?!\d)|[!?()\[\]\"…–—]")
TOO_LONG = re.compile(r"\d{1000}")
"""Numbers that are none stay as they are: Python refuses to convert so many digits."""

PROTOCOLS: dict[str, frozenset[str]] = {
    "seed-tts-eval": frozenset({"zh"}),
    "cv3-eval": frozenset({"zh", "ja", "ko"}),
    "minimax-mls": frozenset({"zh", "ja", "ko", "th"}),
    "thirty-languages": CHARACTER_BASED,
    "instruct-tts-eval": frozenset({"zh"}),
    "texts": CHARACTER_BASED,
}
"""Languages whose errors a protocol counts in characters."""


def is_official_by_character(protocol: str, language: str) -> bool:
    """Whether a protocol counts a language in characters (CER) and not in words (WER)."""
    return base_language(language) in PROTOCOLS[protocol]


def is_strict_by_character(language: str) -> bool:
    """The same for the strict mode: report Table 8."""
    return base_language(language) in CHARACTER_BASED


def official(text: str, *, by_character: bool) -> str:
    """`text` as the official scorers hand it to jiwer; may be empty or hold spaces only."""
    for mark in _punctuation():
        text = text.replace(mark, "")
    # Once only, as there: three spaces become two, and jiwer takes care of the rest.
    text = text.replace("  ", " ")
    return " ".join(text) if by_character else text.lower()


def script_folded(text: str, language: str) -> str:
    """Chinese as it is compared: simplified by words, then by characters; other languages stay as they are.

    The official scripts simplify the hypothesis alone, by zhconv (GPL). OpenCC's words choose among several simplified
    characters; its characters then are one where simplified words keep two apart, such as 著 and 着.
    """
    if base_language(language) != "zh":
        return text
    return "".join(script_blind(in_script(text, "simplified"), language))


def normaliser_of(language: str) -> str:
    """What writes numbers and contractions out in the strict mode, for the report and for cache keys."""
    if base_language(language) == "en":
        return f"numbers and contractions by transformers {version('transformers')} (Whisper's English normaliser)"
    return "digits of all scripts alike, number words as they are"


def strict(text: str, language: str) -> str:
    """`text` as words, or characters, with single spaces between; empty where nothing is pronounced."""
    text = script_folded(unicodedata.normalize("NFKC", text).replace("\u2019", "'"), language).casefold()
    text = "".join(str(unicodedata.decimal(character, character)) for character in text)
    text = _written_out(text) if base_language(language) == "en" else _words(text)
    return " ".join("".join(text.split())) if is_strict_by_character(language) else " ".join(text.split())


def _words(text: str, kept_symbols: str = "") -> str:
    """What is pronounced of a text: letters, marks, numbers, apostrophes inside words, and some symbols."""
    kept = []
    for index, character in enumerate(text):
        kind = unicodedata.category(character)[0]
        is_inside = 0 < index < len(text) - 1 and text[index - 1].isalnum() and text[index + 1].isalnum()
        if character == "'" and is_inside or kind in "LMN" or character in kept_symbols:
            kept.append(character)
        # What stands between words parts them: `well-known` is two words, and so is `and/or`.
        elif kind in "PSZC" and character != "'" and unicodedata.category(character) != "Cf":
            kept.append(" ")
    return "".join(kept)


def _written_out(text: str) -> str:
    """An English text in lower case with its contractions and numbers in one form."""
    whisper = _whisper_normaliser()
    text = re.sub(r"(\d),(?=\d{3}(?!\d))", r"\1", text)
    # It makes "can not" of "can't" and leaves "cannot".
    text = text.replace("cannot", "can not")
    for pattern, replacement in whisper.replacers.items():
        text = re.sub(pattern, replacement, text)
    # Phrase by phrase, so that "in nineteen eighty-seven, three of us" is not 19873. As there, a full stop is a decimal
    # point before a digit, and a sign of currency or percent counts beside one.
    text = " ".join(_numbers(_words(phrase, NUMERIC_SYMBOLS)) for phrase in PHRASE_ENDS.split(text))
    text = re.sub(r"[.$¢€£](?!\d)", " ", text)
    return re.sub(r"(?<!\d)[.%]", " ", text)


def _numbers(phrase: str) -> str:
    return phrase if TOO_LONG.search(phrase) else str(_whisper_normaliser().standardize_numbers(phrase))


@cache
def _whisper_normaliser() -> EnglishTextNormalizer:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    # Its table of British and American spellings comes with Whisper's tokenizer, and is not used.
    return EnglishTextNormalizer({})  # type: ignore[no-untyped-call]


@cache
def _punctuation() -> tuple[str, ...]:
    from zhon.hanzi import punctuation

    return tuple(mark for mark in punctuation + string.punctuation if mark != "'")
