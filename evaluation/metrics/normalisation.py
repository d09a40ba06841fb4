"""Texts as error rates compare them, in two modes that are always both shown.

`official` follows each benchmark's published scorer: Seed-TTS-Eval removes zhon's and ASCII's punctuation one by one
except apostrophes, then doubled spaces once, then lowers English and splits Chinese into characters; what jiwer splits
into words after that is compared. CV3-Eval does the same with characters for Chinese, Japanese and Korean. MiniMax-MLS
and the 30-language set have no official scorer: here it is the same removal, characters for the languages named below.

`strict` is Unicode's view, the same for every benchmark: NFKC, case folded, punctuation and symbols gone except
apostrophes inside words, Chinese simplified, characters for the character-based languages of report Table 8.
"""

from __future__ import annotations

import string
import unicodedata
from functools import cache

from voxmill.data.languages import CHARACTER_BASED, base_language
from voxmill.data.scripts import in_script

NORMALISER_VERSION = "1"
"""Stands in every cached score's key: raise it with any change below that changes a score."""

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


def official_hypothesis(text: str, language: str) -> str:
    """A transcript as the official scorers take it: Chinese in simplified characters."""
    # The official scripts use zhconv (GPL) to zh-cn; this is the nearest of OpenCC's conversions: docs/evaluation.md.
    return in_script(text, "simplified") if base_language(language) == "zh" else text


def strict(text: str, language: str) -> str:
    """`text` as words, or characters, with single spaces between; empty where nothing is pronounced."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'")
    if base_language(language) == "zh":
        text = in_script(text, "simplified")
    text = text.casefold()
    kept = []
    for index, character in enumerate(text):
        kind = unicodedata.category(character)[0]
        is_inside = 0 < index < len(text) - 1 and text[index - 1].isalnum() and text[index + 1].isalnum()
        if character == "'" and is_inside or kind in "LMN":
            kept.append(character)
        # What stands between words parts them: `well-known` is two words, and so is `and/or`.
        elif kind in "PSZC" and character != "'" and unicodedata.category(character) != "Cf":
            kept.append(" ")
    words = "".join(kept).split()
    return " ".join("".join(words)) if is_strict_by_character(language) else " ".join(words)


@cache
def _punctuation() -> tuple[str, ...]:
    from zhon.hanzi import punctuation

    return tuple(mark for mark in punctuation + string.punctuation if mark != "'")
