"""A description read back: which facts its words claim.

Words are looked up in the lexicon of the language (its own wordings and the further ones under `also`), the longest
first, so that 'very slow' is not 'slow'. A claim after a negation is reversed. What the lexicon lacks is not seen: a
reader of patterns misses claims in free wordings, and its recall is measured in benchmarks/writers.py.
"""

import re
from dataclasses import dataclass
from functools import cache

from annotation.descriptions.facts import AXES
from annotation.descriptions.lexicons import lexicon


@dataclass(frozen=True, slots=True)
class Claim:
    """`attribute` is `word` (or is not, when `negated`), as `text` at `start` puts it."""

    attribute: str
    word: str
    negated: bool = False
    text: str = ""
    start: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wording:
    """What some words claim. `literal`: what a text has wherever `expression` matches; "" where that is not known.
    own: whether the grammar writes it, which counts where a further wording (`also`) matches the same words.
    """

    expression: str
    literal: str
    claims: tuple[tuple[str, str], ...]
    own: bool

    @property
    def pattern(self) -> re.Pattern[str]:
        return _compiled(self.expression)


@cache
def _wordings(language: str) -> list[_Wording]:
    words = lexicon(language)
    spaced = words.stop.endswith(" ")
    claims_of: dict[str, list[tuple[str, str]]] = {}
    literals: dict[str, str] = {}
    own: set[str] = set()

    def add(pattern: str, claims: list[tuple[str, str]], literal: str = "") -> None:
        literals[pattern] = literals.get(pattern) or literal
        known = claims_of.setdefault(pattern, [])
        known += [claim for claim in claims if claim not in known]

    def add_literal(wording: str, claims: list[tuple[str, str]]) -> None:
        own.add(re.escape(wording.lower()))
        add(re.escape(wording.lower()), claims, wording.lower())

    for gender, ages in words.heads.items():
        for age, wordings in ages.items():
            for wording in "|".join(wordings).split("|"):
                add_literal(wording, [*[("gender", gender)] * bool(gender), *[("age", age)] * bool(age)])
    for wording, claims in words.voices():
        add_literal(wording, claims)
    for table in (words.design, words.clauses, words.tags):
        for attribute, by_word in table.items():
            for word, wordings in by_word.items():
                for wording in wordings:
                    add_literal(wording, [(attribute, word)])
    for attribute, by_word in words.also.items():
        assert attribute in AXES, attribute
        for word, expressions in by_word.items():
            for expression in expressions:
                add(expression, [(attribute, word)], _beginning(expression))
    edge = (r"(?<!\w)(?:", r")(?!\w)") if spaced else ("(?:", ")")
    return [
        _Wording(
            expression=edge[0] + pattern + edge[1],
            literal=literals[pattern],
            claims=tuple(claims),
            own=pattern in own,
        )
        for pattern, claims in claims_of.items()
        if claims
    ]


@cache
def _compiled(expression: str) -> re.Pattern[str]:
    """Of the thousands of wordings few are met."""
    return re.compile(expression)


def _beginning(expression: str) -> str:
    """What every match of a regular expression begins with; "" where that is not plain to see."""
    sign = re.search(r"[\\.^$*+?{}\[\]|()]", expression)
    if sign is None:
        return expression
    outside = re.sub(r"\([^()]*\)", "", expression)
    if any(char in outside for char in "()|\\"):
        return ""
    optional = sign.group() in "?*{"
    return expression[: sign.start() - optional]


@cache
def _negation(language: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, lexicon(language).negations))})(?!\w)")


def read_claims(text: str, language: str) -> list[Claim]:
    """Claims in order of appearance; the same claim twice is one."""
    lowered = text.lower()
    hits: list[tuple[int, int, bool, str, str]] = []
    for wording in _wordings(language):
        # Few of the wordings are in a text, and to look for a string is much quicker than for a pattern.
        if wording.literal not in lowered:
            continue
        for match in wording.pattern.finditer(lowered):
            hits += [(match.start(), match.end(), wording.own, attribute, word) for attribute, word in wording.claims]
    # Of overlapping matches the longest counts; equal spans count both ('girl' is a gender and an age), but of those
    # that the grammar writes and further ones the grammar's ('low voice' is the voice's, not the clip's).
    kept: list[tuple[int, int, bool, str, str]] = []
    for hit in sorted(hits, key=lambda hit: (-(hit[1] - hit[0]), not hit[2], hit[0])):
        if all(hit[1] <= other[0] or hit[0] >= other[1] or hit[:3] == other[:3] for other in kept):
            kept.append(hit)
    read: list[Claim] = []
    for start, end, _, attribute, word in sorted(kept):
        claim = Claim(attribute, word, _is_negated(lowered, start, language), text[start:end], start)
        if (attribute, word, claim.negated) not in [(c.attribute, c.word, c.negated) for c in read]:
            read.append(claim)
    return read


def unread_words(text: str, language: str) -> list[str]:
    """Words outside of all claims that are not `plain`: what no pattern covers, in lower case."""
    rest = text.lower()
    for claim in read_claims(text, language):
        rest = rest.replace(claim.text.lower(), " ", 1)
    plain = set(lexicon(language).plain)
    return [word for word in re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", rest) if word not in plain]


def _is_negated(lowered: str, start: int, language: str) -> bool:
    """Whether a negation stands within the three words before, in the same part of the sentence."""
    words = lexicon(language)
    before = re.split(r"[,.;:!?，。；：！？]", lowered[:start])[-1]
    if not words.stop.endswith(" "):
        return any(before.endswith(negation) for negation in words.negations)
    near = " ".join(before.split()[-3:])
    return bool(words.negations) and _negation(language).search(near) is not None
