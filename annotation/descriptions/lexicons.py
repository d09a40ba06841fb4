"""The words of a language for facts, from `lexicon/{language}.yaml` beside this file: for writing and for reading."""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import permutations

import yaml
from pydantic import ValidationError

from annotation.descriptions.facts import AXES, FREE_WORDS, LEVELS, PAUSES, TEXTURES
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

    heads: gender ('' where unknown) to age ('' where unknown) to noun phrases. voice: adjectives of the voice, by
    attribute and word. design: what follows the noun phrase. clauses: what follows the verb, by attribute and word.
    tags: the same, standing alone. also: regular expressions of further wordings. said: by attribute, expressions
    of its `nouns` and, by word, of what is said of them; links: what may stand between the two. negations: what
    reverses the claim after it, and contrasts: what ends that; cancels: whether two negations are none. degrees:
    what makes 'very low' of 'low'. joint: what joins an adjective to a noun after it. plain: words that claim
    nothing. All but `plain` are regular expressions.

    Heads and adjectives may have a second form, parted by `|`, that sentences ask for: `{head}` is the first, `{head2}`
    the second. nouns: a head with adjectives. alone: adjectives without a head. voice_noun: adjectives as a text of
    their own. voice_is: a sentence about the voice. whole: what makes a sentence of a noun phrase. verbs begin a
    sentence of clauses, again a second one; predicates follow a noun phrase. relative: what joins clauses to a noun
    phrase, and pronouns what begins a second sentence, by gender; '' where it does not matter. very: what makes two
    words of an adverb. adjectives: what joins two of them. spelling: regular expressions of what meets at the seams,
    and what is written there.
    """

    name: str
    comma: str
    and_: str
    stop: str
    very: str
    verbs: list[str]
    predicates: list[str]
    again: list[str]
    relative: Wordings
    pronouns: Wordings
    adjectives: list[str]
    nouns: list[str]
    alone: list[str]
    voice_noun: list[str]
    voice_is: list[str]
    whole: list[str]
    spelling: dict[str, str]
    heads: dict[str, Wordings]
    voice: dict[str, Wordings]
    design: dict[str, Wordings]
    clauses: dict[str, Wordings]
    tags: dict[str, Wordings]
    also: dict[str, Wordings]
    said: dict[str, dict[str, str]] = {}
    links: list[str] = []
    negations: list[str]
    contrasts: list[str] = []
    cancels: bool = False
    degrees: list[str] = []
    joint: str = "(?!)"
    plain: list[str] = []

    @property
    def space(self) -> str:
        """What stands between words: languages that end a sentence without a space write none."""
        return " " if self.stop.endswith(" ") else ""

    def says(self, attribute: str, word: str) -> bool:
        """Whether there are wordings of a fact."""
        return word in self.voice.get(attribute, {}) or bool(wordings(self.tags, attribute, word))

    def joined(self, adjectives: Sequence[str], join: str) -> str:
        """Adjectives, whose forms are joined each to each."""
        forms = zip(*(adjective.split("|") for adjective in adjectives), strict=True)
        return "|".join(join.join(form) for form in forms)

    def voices(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Every wording of a voice by one or two of its adjectives, and what it claims of it."""
        single = [
            (adjective, (attribute, word))
            for attribute, by_word in self.voice.items()
            for word, adjectives in by_word.items()
            for adjective in adjectives
        ]
        found = [(adjective, [claim]) for adjective, claim in single]
        for (one, claim), (two, other) in permutations(single, 2):
            if claim[0] != other[0]:
                found += [(self.joined([one, two], join), [claim, other]) for join in self.adjectives]
        frames = [*self.voice_noun, *self.voice_is]
        of_head = [noun.removeprefix("{head}").removesuffix("{head}").strip() for noun in self.nouns]
        frames += [noun for noun in of_head if not any(frame in noun for frame in frames)]
        return [(filled(frame, voice=adjectives), claims) for adjectives, claims in found for frame in frames]


def filled(frame: str, **parts: str) -> str:
    """A frame with its parts; `{head2}` is the second form of `head`, or the only one."""
    slots: dict[str, str] = {}
    for name, part in parts.items():
        forms = part.split("|")
        slots |= {name: forms[0], f"{name}2": forms[-1]}
    return frame.format_map(slots)


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
    known = table.get(attribute, {})
    # A corpus writes accents and styles in English, which only a text in the same letters can hold.
    if word not in known and (attribute == "emphasis" or (attribute in FREE_WORDS and word.isascii())):
        return [one.replace("{}", word) for one in known.get(STATED, [])]
    return known.get(word, [])


def _missing(words: Lexicon) -> list[str]:
    missing = [f"heads.{g}.{a}" for g in (*GENDERS, "") for a in (*AGES, "") if not words.heads.get(g, {}).get(a)]
    of_voice = ("register", "texture")
    for section, attributes in (
        ("voice", list(of_voice)),
        ("tags", [attribute for attribute in WORDS if attribute not in of_voice]),
        ("design", ["dialect"]),
        ("clauses", [attribute for attribute in WORDS if AXES[attribute] == "style"]),
    ):
        table: dict[str, Wordings] = getattr(words, section)
        missing += [f"{section}.{a}.{w}" for a in attributes for w in WORDS[a] if not table.get(a, {}).get(w)]
    return missing
