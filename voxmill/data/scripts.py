"""The scripts of texts: what stands between two pieces of a text, how much speech a character is, and Chinese in
simplified or traditional characters (OpenCC).
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Literal

from voxmill.data.languages import base_language

if TYPE_CHECKING:
    from opencc import OpenCC

ChineseScript = Literal["simplified", "traditional"]

# Blocks of Unicode.
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_BOPOMOFO, _YI = "\u3100-\u312f\u31a0-\u31bf", "\ua000-\ua4cf"
_THAI_AND_LIKE = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f"
"""Thai, Lao, Tibetan, Burmese, Khmer: no space between words, one where a sentence or phrase ends."""

_WITHOUT_SPACES = re.compile(f"[{_HAN}{_KANA}{_BOPOMOFO}{_YI}]")
_WITHOUT_SPACES_IN_PHRASES = re.compile(f"[{_THAI_AND_LIKE}]")

# Letters of an alphabet that a written character stands for. A character of Chinese is a syllable, of which Mandarin
# has 5.2 a second where six languages of Europe have 6.8 of 2.3 letters (Pellegrino, Coupé, Marsico 2011); a kana is a
# mora; a block of Hangul has 2.4 letters; Ethiopic and Yi write syllables; Arabic and Hebrew leave out most vowels.
# What espeak-ng says of one text in each agrees within a fifth (docs/annotation.md).
_WORTH: tuple[tuple[re.Pattern[str], float], ...] = (
    (re.compile(f"[{_HAN}{_BOPOMOFO}]"), 3.0),
    (re.compile(f"[{_KANA}]"), 2.0),
    (re.compile("[\u1100-\u11ff\uac00-\ud7ff]"), 2.5),
    (re.compile(f"[\u1200-\u139f{_YI}]"), 2.0),
    (re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]"), 1.5),
)


def joined(pieces: Iterable[str], *, within_phrases: bool = False) -> str:
    """Pieces of one text, in order, with what their scripts put between them; empty ones are left out.

    Chinese (any of it) and Japanese put nothing. Thai, Lao, Khmer, Burmese and Tibetan have no space between words, but
    one where a phrase ends, as it does at a pause; others have one between words.

    Args:
        within_phrases: the pieces may end anywhere, as lines do, and not at pauses alone.
    """
    text = ""
    for piece in (piece.strip() for piece in pieces):
        if text and piece:
            text += _space(text, piece, within_phrases)
        text += piece
    return text


def one_line(text: str) -> str:
    """A text with single spaces, and its lines joined as `joined` has it."""
    return joined(" ".join(line.split()) for line in text.splitlines())


def _space(before: str, after: str, within_phrases: bool) -> str:
    # The letters beside the joint: marks may be those of another script.
    last = next((char for char in reversed(before) if char.isalnum()), "")
    first = next((char for char in after if char.isalnum()), "")
    for pattern in (_WITHOUT_SPACES, *([_WITHOUT_SPACES_IN_PHRASES] if within_phrases else [])):
        if pattern.match(last) and pattern.match(first):
            return ""
    return " "


def letters_a_character(text: str) -> float:
    """How many letters of an alphabet each character of a text stands for, on average, spaces left out.

    1 for alphabets and for an empty text; 3 for Chinese.
    """
    plain = "".join(text.split())
    if not plain or plain.isascii():
        return 1.0
    return 1.0 + sum((worth - 1.0) * len(pattern.findall(plain)) for pattern, worth in _WORTH) / len(plain)


# ---- Chinese


def in_script(text: str, script: ChineseScript) -> str:
    """A Chinese text in simplified characters (of the mainland), or in traditional ones (OpenCC's standard).

    Whole words count: 头发 and 发现 have other traditional characters for 发.
    """
    written: str = _converter("tw2s" if script == "simplified" else "s2t").convert(text)
    return written


def words_in_script(words: Iterable[str], text: str, script: ChineseScript) -> list[str]:
    """Words of a Chinese text in a script, as `in_script` writes the text, where each stands in it."""
    whole = in_script(text, script)
    written, place = [], 0
    for word in words:
        found = text.find(word, place)
        if found < 0 or len(whole) != len(text):
            written.append(in_script(word, script))
        else:
            place = found + len(word)
            written.append(whole[found:place])
    return written


class _Simplified(dict[str, str]):
    """Characters by themselves, each in its simplified form."""

    def __missing__(self, char: str) -> str:
        self[char] = _converter("tw2s").convert(char)
        return self[char]


_SIMPLIFIED = _Simplified()
_FIRST_OF_EAST_ASIA = "\u2e80"


def script_blind(characters: Iterable[str], language: str) -> list[str]:
    """Characters of a text as they are compared: of Chinese the simplified ones, whichever script it is in."""
    if base_language(language) != "zh":
        return list(characters)
    return [char if char < _FIRST_OF_EAST_ASIA else _SIMPLIFIED[char] for char in characters]


@cache
def _converter(name: str) -> "OpenCC":
    from opencc import OpenCC

    return OpenCC(name)
