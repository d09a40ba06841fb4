"""Whether a description repeats what is said: it would teach a synthesiser the text by way of the style."""

import re

WORDS = 4
"""Words in a row that a description and a transcript have in common only where one quotes the other."""
CHARACTERS = 6
"""The same of languages that are written without spaces."""
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def repeats_words(description: str, transcript: str) -> bool:
    """Whether so many words in a row, or all of a transcript that has fewer but two, are in both; case is one."""
    of_text, of_words = _units(description), _units(transcript)
    length = min(CHARACTERS if _UNSPACED.search(transcript) else WORDS, len(of_words))
    if length < 2:
        return False
    runs = {tuple(of_words[i : i + length]) for i in range(len(of_words) - length + 1)}
    return any(tuple(of_text[i : i + length]) in runs for i in range(len(of_text) - length + 1))


def _units(text: str) -> list[str]:
    """Words in lower case; of scripts without spaces, characters."""
    spread = _UNSPACED.sub(lambda match: f" {match[0]} ", text.lower())
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", spread)
