"""What a corpus calls the speaker and the delivery, in the words that voxmill has for them."""

import re

from annotation.voice.age import age_band
from annotation.voice.emotion import emotion_name
from voxmill.data.languages import dialect_code
from voxmill.data.records import GivenLabels

_GENDERS = {
    "female": ("f", "female", "woman", "girl", "w", "feminine", "female_feminine"),
    "male": ("m", "male", "man", "boy", "masculine", "male_masculine"),
}
_UNKNOWN = frozenset(("", "n/a", "na", "nan", "none", "null", "unk", "unknown", "<unk>", "other", "others", "?", "-"))
"""What stands in place of a label."""
SONG = "song"
"""The style of what is sung."""
SONG_SHARE = 0.5
"""A clip of which at least this share is sung is one; clips of three real songs have 0.56 and more."""
_SONGS = frozenset(("song", "songs", "sing", "singing", "sung"))
_DELIVERIES = {
    ("phonation", "whispered"): ("whisper", "whispered", "whispering", "whispers"),
    ("phonation", "falsetto"): ("falsetto",),
    ("phonation", "shouted"): ("shout", "shouted", "shouting", "yell", "yelling", "scream", "screaming"),
    ("laughter", "laughing"): ("laugh", "laughing", "laughter", "laughs"),
}
"""What a style says of the voice, such as those of Expresso and EARS do."""
_WORDS = re.compile(r"\w[\w ,'’&/|;+-]{0,59}")


def given_classes(labels: GivenLabels | None) -> dict[str, str]:
    """The word of each attribute that a corpus says something of; what is no gender, age or emotion is left out."""
    if labels is None:
        return {}
    found = {
        "gender": _gender(labels.gender),
        "age": _age(labels.age),
        "emotion": _emotion(labels.emotion),
        # A dialect without a tag here, such as one of another language, is said as an accent.
        "accent": known_label(labels.accent) or (None if given_dialect(labels) else known_label(labels.dialect)),
        "style": _style(labels.style),
        **_delivery(labels.style),
    }
    return {name: word for name, word in found.items() if word is not None}


def given_dialect(labels: GivenLabels | None) -> str | None:
    """Code of the Chinese dialect that a corpus gives; None where it gives none that has a tag."""
    known = None if labels is None else known_label(labels.dialect)
    return None if known is None else dialect_code(known)


def _style(text: str | None) -> str | None:
    word = known_label(text)
    return SONG if word is not None and word.lower() in _SONGS else word


def _delivery(text: str | None) -> dict[str, str]:
    word = (known_label(text) or "").lower()
    return {attribute: said for (attribute, said), words in _DELIVERIES.items() if word in words}


def known_label(text: str | None) -> str | None:
    """A label as it may stand among facts, and so in a writer's prompt: some words, and no sentence."""
    word = "" if text is None else " ".join(text.split())
    return None if word.lower() in _UNKNOWN or _WORDS.fullmatch(word) is None else word


def _gender(text: str | None) -> str | None:
    word = (known_label(text) or "").lower()
    return next((gender for gender, words in _GENDERS.items() if word in words), None)


def _age(text: str | None) -> str | None:
    # What names no age stays in the clip's `given`.
    return None if (known := known_label(text)) is None else age_band(known)


def _emotion(text: str | None) -> str | None:
    known = known_label(text)
    name = None if known is None else emotion_name(known)
    return None if name is None or name in _UNKNOWN or not any(char.isalpha() for char in name) else name
