"""What a corpus calls the speaker and the delivery, in the words that voxmill has for them."""

import re

from annotation.voice.age import age_band
from annotation.voice.emotion import emotion_name
from voxmill.core.errors import UserError
from voxmill.data.records import GivenLabels

_GENDERS = {
    "female": ("f", "female", "woman", "girl", "w", "feminine", "female_feminine"),
    "male": ("m", "male", "man", "boy", "masculine", "male_masculine"),
}
_UNKNOWN = frozenset(("", "n/a", "na", "nan", "none", "null", "unk", "unknown", "<unk>", "other", "others", "?", "-"))
"""What stands in place of a label."""
_WORDS = re.compile(r"\w[\w ,'’&/|;+-]{0,59}")


def given_classes(labels: GivenLabels | None) -> dict[str, str]:
    """The word of each attribute that a corpus says something of; what is no gender, age or emotion is left out."""
    if labels is None:
        return {}
    found = {
        "gender": _gender(labels.gender),
        "age": _age(labels.age),
        "emotion": _emotion(labels.emotion),
        "accent": _known(labels.accent),
        "style": _known(labels.style),
    }
    return {name: word for name, word in found.items() if word is not None}


def _known(text: str | None) -> str | None:
    """A label as it may stand among facts, and so in a writer's prompt: some words, and no sentence."""
    word = "" if text is None else " ".join(text.split())
    return None if word.lower() in _UNKNOWN or _WORDS.fullmatch(word) is None else word


def _gender(text: str | None) -> str | None:
    word = (_known(text) or "").lower()
    return next((gender for gender, words in _GENDERS.items() if word in words), None)


def _age(text: str | None) -> str | None:
    try:
        return None if (known := _known(text)) is None else age_band(known)
    except UserError:
        # It names no age, and that is all: the corpus's own word stays in the clip's `given`.
        return None


def _emotion(text: str | None) -> str | None:
    known = _known(text)
    name = None if known is None else emotion_name(known)
    return None if name is None or name in _UNKNOWN or not any(char.isalpha() for char in name) else name
