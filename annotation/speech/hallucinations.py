"""Texts that recognisers are known to invent, by language: `hallucinations.yaml`, with its sources."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from annotation.speech.text_checks import normalise
from voxmill.data.scripts import script_blind

_TABLE = Path(__file__).parent / "hallucinations.yaml"
_KINDS = ("credits", "sign_offs")


@dataclass(frozen=True, slots=True)
class _Phrases:
    """As they are compared, without spaces: credits of subtitles count anywhere, sign-offs as a whole text."""

    credits: tuple[str, ...]
    sign_offs: frozenset[str]


@cache
def _phrases() -> _Phrases:
    table = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    if set(table) != set(_KINDS) or not all(isinstance(own, list) for kind in _KINDS for own in table[kind].values()):
        raise ValueError(f"{_TABLE}: has to hold lists of phrases by language below {' and '.join(_KINDS)}")
    first, second = ([_key(text) for own in table[kind].values() for text in own] for kind in _KINDS)
    if not all((*first, *second)):
        raise ValueError(f"{_TABLE}: holds a phrase without letters")
    return _Phrases(tuple(first), frozenset(second))


def _key(text: str) -> str:
    return "".join(script_blind(normalise(text).replace(" ", ""), "zh"))


def is_hallucination(text: str) -> bool:
    """Whether a text has a credit of subtitles in it, or is nothing but what videos end with, once or repeated.

    Of every language: a credit is often in another one than the speech.
    """
    phrases, key = _phrases(), _key(text)
    if any(phrase in key for phrase in phrases.credits):
        return True
    return any(key.startswith(phrase) and not key.replace(phrase, "") for phrase in phrases.sign_offs)
