"""How words are spelt in the vocabulary of a CTC model: its case, its word delimiter, and letters that it has not."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

DELIMITERS = ("|", " ")
"""Tokens between words, as wav2vec2 and others have them."""
APOSTROPHES = str.maketrans({char: "'" for char in "’ʼ‘`´"})


@dataclass(frozen=True, slots=True)
class Letters:
    """The letters of a vocabulary and their tokens; `delimiter` stands between words, None where it has none.

    romanised: writes a word in Latin letters first.
    """

    tokens: Mapping[str, int]
    delimiter: int | None
    romanised: Callable[[str], str] | None = None

    @classmethod
    def of(
        cls, vocabulary: Mapping[str, int], special: Sequence[str], romanised: Callable[[str], str] | None = None
    ) -> "Letters":
        """Those of a vocabulary without its special tokens."""
        known = {char: token for char, token in vocabulary.items() if len(char) == 1 and char not in special}
        delimiter = next((vocabulary[char] for char in DELIMITERS if char in vocabulary), None)
        letters = {char: token for char, token in known.items() if char not in DELIMITERS}
        return cls(letters, delimiter, romanised)

    def spell(self, word: str) -> list[int]:
        """The tokens of a word, letters that are not known left out; none where none is."""
        text = unicodedata.normalize("NFC", word).translate(APOSTROPHES)
        if self.romanised is not None:
            text = self.romanised(text)
        found = [self._known(char) for char in text]
        # An apostrophe or hyphen alone is no sound.
        return [self.tokens[char] for known in found for char in known] if any(map(str.isalnum, "".join(found))) else []

    def _known(self, char: str) -> str:
        """A letter as the vocabulary has it: in its case, or without its accents; "" where it has neither."""
        return next((form for form in _forms(char) if all(one in self.tokens for one in form)), "")


def _forms(char: str) -> Iterator[str]:
    bare = "".join(one for one in unicodedata.normalize("NFKD", char) if not unicodedata.combining(one))
    for form in (char, bare):
        if form:
            yield from (form, form.lower(), form.upper(), form.casefold())
