"""The words of a language for facts, from `lexicon/{language}.yaml` beside this file: for writing and for reading."""

from functools import cache
from importlib import resources

import yaml
from pydantic import ValidationError

from annotation.descriptions.facts import LEVELS, PAUSES, TEXTURES
from annotation.descriptions.voice_facts import CHANNELS, DYNAMICS, ENDINGS, LAUGHTER, PHONATIONS
from annotation.voice.given_labels import SONG
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.data.languages import DIALECTS, base_language

GENDERS = ("female", "male")
AGES = ("child", "young", "middle-aged", "elderly")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
WORDS: dict[str, tuple[str, ...]] = {
    "gender": GENDERS,
    "age": AGES,
    "texture": TEXTURES,
    **LEVELS,
    "pauses": PAUSES,
    "emotion": EMOTIONS,
    "dialect": tuple(DIALECTS.values()),
    "style": (SONG,),
    "dynamics": DYNAMICS,
    "ending": ENDINGS,
    "phonation": PHONATIONS,
    "channel": CHANNELS,
    "laughter": LAUGHTER,
}
STATED = "stated"
"""In place of a word that is free: a wording with a `{}` for it."""

Wordings = dict[str, list[str]]


class Lexicon(Config):
    """Wordings of one language.

    heads: gender ('' where unknown) to age ('' where unknown) to noun phrases. design: what follows the noun phrase.
    clauses: what follows the verb, by attribute and word. tags: the same, standing alone. also: regular expressions of
    further wordings. negations: words that reverse the claim after them. plain: words that claim nothing.
    """

    name: str
    comma: str
    and_: str
    stop: str
    verbs: list[str]
    again: list[str]
    heads: dict[str, Wordings]
    design: dict[str, Wordings]
    clauses: dict[str, Wordings]
    tags: dict[str, Wordings]
    also: dict[str, Wordings]
    negations: list[str]
    plain: list[str] = []


def _languages() -> list[str]:
    return sorted(
        p.name.removesuffix(".yaml")
        for p in resources.files("annotation.descriptions.lexicon").iterdir()
        if p.name.endswith(".yaml")
    )


LEXICON_LANGUAGES: tuple[str, ...] = tuple(_languages())


@cache
def lexicon(language: str) -> Lexicon:
    """The words of a language or of a dialect's language.

    Raises:
        UserError: there is no file for the language, or it lacks a word.
    """
    base = base_language(language)
    if base not in LEXICON_LANGUAGES:
        raise UserError(
            f"no words for {language!r} in annotation/descriptions/lexicon/; there are {', '.join(LEXICON_LANGUAGES)}"
        )
    text = resources.files("annotation.descriptions.lexicon").joinpath(f"{base}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    values["and_"] = values.pop("and")
    try:
        words = Lexicon.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"annotation/descriptions/lexicon/{base}.yaml: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    missing = _missing(words)
    if missing:
        raise UserError(f"annotation/descriptions/lexicon/{base}.yaml lacks {', '.join(missing)}")
    return words


def wordings(table: dict[str, Wordings], attribute: str, word: str) -> list[str]:
    """How a table of a lexicon puts a word; [] where it cannot. A free word stands in its quotation marks."""
    if attribute == "emphasis":
        return [one.replace("{}", word) for one in table.get(attribute, {}).get(STATED, [])]
    return table.get(attribute, {}).get(word, [])


def _missing(words: Lexicon) -> list[str]:
    missing = [f"heads.{g}.{a}" for g in (*GENDERS, "") for a in (*AGES, "") if not words.heads.get(g, {}).get(a)]
    for section, attributes in (
        ("tags", list(WORDS)),
        ("design", ["dialect", "texture"]),
        (
            "clauses",
            [*LEVELS, "pauses", "emotion", "style", "dynamics", "ending", "phonation", "channel", "laughter"],
        ),
    ):
        table: dict[str, Wordings] = getattr(words, section)
        missing += [f"{section}.{a}.{w}" for a in attributes for w in WORDS[a] if not table.get(a, {}).get(w)]
    return missing
