"""A description read back: which facts its words claim, and which of its parts no word of the lexicon explains.

Three ways to a claim, all by the lexicon of the language, over text without case, accents and marks (`fold`):
wordings of the grammar and of `also`, the longest first, so that 'very slow' is not 'slow'; and a noun with an
adjective of its own (`said`), because a low pitch is not a low volume. A claim after a negation is reversed, up to a
contrast ('not low but high'). Quoted speech and names after a title are no claims. A part between two marks of
punctuation with a word that is in no claim and claims nothing (`plain`) is unread.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from annotation.descriptions.facts import AXES, LEVELS
from annotation.descriptions.lexicons import lexicon

_MARKS = r"[.,;:!?。、；：！？…—–\n]"
_QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|«[^»]*»|「[^」]*」|『[^』]*』|„[^“”]*[“”]")
_TITLED = re.compile(
    r"\b((?:Mr|Mrs|Ms|Miss|Dr|Prof|Sr|Sra|Srta|Don|Doña|Señor|Señora|M|Mme|Mlle|Monsieur|Madame|Sig|Signor|Signora|Herr|Frau"
    r"|[Гг]-н|[Гг]-жа|[Гг]осподин|[Гг]оспожа)\.? )((?:[^\W\d_a-zа-я]\w+ ?)+)"
)
_BEGINNING = 5
_STRONGER = {levels[place]: levels[place - 1 if place == 1 else 4] for levels in LEVELS.values() for place in (1, 3)}
_STRONGER.pop("even")


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
        own.add(re.escape(fold(wording)))
        add(re.escape(fold(wording)), claims, fold(wording))

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
            for expression in map(_fold_expression, expressions):
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
def _by_beginning(language: str) -> dict[str, list[tuple[int, _Wording]]]:
    """Wordings with their places by the first characters, at most `_BEGINNING`, of what a text has."""
    groups: dict[str, list[tuple[int, _Wording]]] = {}
    for place, wording in enumerate(_wordings(language)):
        groups.setdefault(wording.literal[:_BEGINNING], []).append((place, wording))
    return groups


def _possible_wordings(folded: str, language: str) -> list[_Wording]:
    """Those that a text may have, in the order of the lexicon: few of thousands, and a string is found quicker."""
    groups = _by_beginning(language)
    inside = {folded[at : at + size] for size in range(1, _BEGINNING + 1) for at in range(len(folded))}
    found = [entry for key in groups.keys() & {"", *inside} for entry in groups[key] if entry[1].literal in folded]
    return [wording for _, wording in sorted(found, key=lambda entry: entry[0])]


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


@dataclass(frozen=True, slots=True)
class Reading:
    """Claims of a text, in order of appearance, and the parts of it that could not be read."""

    claims: tuple[Claim, ...]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Hit:
    """A claim's place. `negated`: None where what stands before is still to be looked at."""

    start: int
    end: int
    own: bool
    attribute: str
    word: str
    negated: bool | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    """A noun and adjectives of one attribute: `before` and `after` the adjective, and adjectives that follow one."""

    attribute: str
    words: tuple[str, ...]
    before: re.Pattern[str]
    after: re.Pattern[str]
    more: re.Pattern[str]


def fold(text: str) -> str:
    """Text without case, accents and full-width forms: what is compared. Not of the same length."""
    whole = unicodedata.normalize("NFKD", text.replace("’", "'").replace("Ё", "Е").replace("ё", "е"))
    return unicodedata.normalize("NFC", "".join(c for c in whole if not unicodedata.combining(c))).lower()


def _fold_expression(expression: str) -> str:
    """The same of a regular expression, whose signs have a case."""
    whole = unicodedata.normalize("NFKD", expression.replace("’", "'").replace("ё", "е"))
    return unicodedata.normalize("NFC", "".join(c for c in whole if not unicodedata.combining(c)))


@cache
def _words_of(language: str, field: str) -> re.Pattern[str]:
    """Any of a list of the lexicon, which holds regular expressions; matches nothing where the list is empty."""
    words = lexicon(language)
    some = sorted(map(_fold_expression, getattr(words, field)), key=len, reverse=True)
    joined = "|".join(some) or r"(?!)"
    return re.compile(rf"(?<!\w)(?:{joined})(?!\w)" if words.space else f"(?:{joined})")


@cache
def _said(language: str) -> list[_Said]:
    words = lexicon(language)
    space = r"\s+" if words.space else ""
    between = "|".join(map(_fold_expression, [*words.links, *words.degrees, *words.negations]))
    contrast = "|".join(map(_fold_expression, [*words.contrasts, *words.negations]))
    edge = (r"(?<!\w)", r"(?!\w)") if words.space else ("", "")
    read: list[_Said] = []
    for attribute, table in words.said.items():
        nouns = _fold_expression(table["nouns"])
        by_word = {word: _fold_expression(some) for word, some in table.items() if word != "nouns"}
        any_of = "|".join(f"(?P<w{number}>{some})" for number, some in enumerate(by_word.values()))
        filler = f"(?:{space}(?:{between})){{0,5}}"
        read.append(
            _Said(
                attribute,
                tuple(by_word),
                re.compile(f"{edge[0]}(?:{nouns}){filler}{space}(?:{any_of}){edge[1]}"),
                re.compile(f"{edge[0]}(?:{any_of}){space}(?:(?:{words.joint}){space})?(?:{nouns}){edge[1]}"),
                re.compile(f"[,，]?\\s*(?:{contrast}){filler}{space}(?:{any_of}){edge[1]}"),
            )
        )
    return read


def _said_hits(text: str, language: str) -> Iterator[_Hit]:
    negation, contrast = _words_of(language, "negations"), _words_of(language, "contrasts")
    degree = _words_of(language, "degrees")

    def hit(one: _Said, match: re.Match[str], start: int, negated: bool | None) -> _Hit:
        number = next(i for i in range(len(one.words)) if match.group(f"w{i}") is not None)
        word = one.words[number]
        if degree.search(match.group()):
            word = _STRONGER.get(word, word)
        return _Hit(start, match.end(), False, one.attribute, word, negated)

    for one in _said(language):
        for match in one.before.finditer(text):
            # 'The pitch is not high': the negation is between the noun and the adjective.
            adjective = next(start for start in map(match.start, match.groupdict()) if start >= 0)
            inside = negation.search(text[match.start() : adjective])
            yield hit(one, match, match.start(), True if inside else None)
            place = match.end()
            while following := one.more.match(text, place):
                tail = contrast.split(following.group())[-1]
                yield hit(one, following, following.start(), negation.search(tail) is not None)
                place = following.end()
        for match in one.after.finditer(text):
            yield hit(one, match, match.start(), None)


def read_claims(text: str, language: str) -> list[Claim]:
    """Claims in order of appearance; the same claim twice is one."""
    return list(read(text, language).claims)


def read(text: str, language: str) -> Reading:
    """What a text claims, and its parts that could not be read, as `fold` gives them."""
    folded = fold(_without_speech(text, lexicon(language).space))
    hits = _hits(folded, language)
    claims: list[Claim] = []
    known = set()
    for hit in hits:
        negated = hit.negated if hit.negated is not None else _is_negated(folded, hit.start, language)
        if (hit.attribute, hit.word, negated) not in known:
            known.add((hit.attribute, hit.word, negated))
            claims.append(Claim(hit.attribute, hit.word, negated, folded[hit.start : hit.end], hit.start))
    return Reading(tuple(claims), tuple(_unread_parts(folded, hits, language)))


def _without_speech(text: str, space: str) -> str:
    """Quotations of three words and more, and names after a title, are taken out: they are not about the voice."""

    def is_speech(quoted: str) -> bool:
        return len(quoted.split()) >= 3 if space else len(quoted) > 8

    def emptied(match: re.Match[str]) -> str:
        # The marks stay, by which emphasised words are told.
        quoted = match.group()
        return f"{quoted[0]}  {quoted[-1]}" if is_speech(quoted[1:-1]) else quoted

    text = _QUOTED.sub(emptied, text)
    return _TITLED.sub(lambda match: match.group(1), text)


def _hits(folded: str, language: str) -> list[_Hit]:
    degree = _words_of(language, "degrees")
    hits = list(_said_hits(folded, language))
    for wording in _possible_wordings(folded, language):
        for match in wording.pattern.finditer(folded):
            for attribute, word in wording.claims:
                start = match.start()
                if word in _STRONGER and (before := _ends_with(degree, folded, start)) is not None:
                    start, word = before, _STRONGER[word]
                hits.append(_Hit(start, match.end(), wording.own, attribute, word))
    # Of overlapping matches the longest counts; equal spans count both ('girl' is a gender and an age), but of those
    # that the grammar writes and further ones the grammar's ('low voice' is the voice's, not the clip's).
    kept: list[_Hit] = []
    taken: dict[int, _Hit] = {}
    for one in sorted(hits, key=lambda hit: (-(hit.end - hit.start), not hit.own, hit.start)):
        over = {taken[place] for place in range(one.start, one.end) if place in taken}
        if all((one.start, one.end, one.own) == (other.start, other.end, other.own) for other in over):
            kept.append(one)
            taken.update(dict.fromkeys(range(one.start, one.end), one))
    return sorted(kept, key=lambda hit: (hit.start, hit.end, hit.attribute, hit.word))


def _ends_with(pattern: re.Pattern[str], text: str, end: int) -> int | None:
    """Where a match of a pattern begins that ends, with a space, at `end`; None where there is none."""
    before = text[max(end - 30, 0) : end].rstrip()
    last = [match for match in pattern.finditer(before) if match.end() == len(before)]
    return max(end - 30, 0) + last[0].start() if last else None


def _unread_parts(folded: str, hits: list[_Hit], language: str) -> Iterator[str]:
    characters = list(folded)
    for hit in hits:
        characters[hit.start : hit.end] = " " * (hit.end - hit.start)
    rest = "".join(characters)
    place = 0
    for piece in re.split(f"({_MARKS})", folded):
        mine = rest[place : place + len(piece)]
        place += len(piece)
        if _unknown(mine, language):
            yield piece.strip()


def _unknown(rest: str, language: str) -> list[str]:
    """Words that claim nothing are taken out of what is in no claim: what is left."""
    for field in ("negations", "contrasts", "degrees", "links"):
        rest = _words_of(language, field).sub(" ", rest)
    if lexicon(language).space:
        return [word for word in re.findall(r"[^\W_]+(?:['-][^\W_]+)*", rest) if word not in _plain(language)]
    return re.findall(r"[^\W_]+", _words_of(language, "plain").sub(" ", rest))


@cache
def _plain(language: str) -> frozenset[str]:
    """Words that claim nothing: the lexicon's, and those of the grammar's own frames."""
    words = lexicon(language)
    frames = [*words.verbs, *words.again, *words.predicates, *words.voice_is, *words.whole, *words.nouns, words.and_]
    inside = re.findall(r"[^\W_]+", fold(" ".join(re.sub(r"{\w+}", " ", frame) for frame in frames)))
    return frozenset([*map(fold, words.plain), *inside])


def unread_words(text: str, language: str) -> list[str]:
    """Words outside of all claims that are not `plain`: what no pattern covers, in lower case."""
    folded = fold(text)
    characters = list(folded)
    for hit in _hits(folded, language):
        characters[hit.start : hit.end] = " " * (hit.end - hit.start)
    return _unknown("".join(characters), language)


def _is_negated(folded: str, start: int, language: str) -> bool:
    """Whether a negation stands within the three words before, in the same part of the sentence, after any contrast.

    In languages where negations cancel each other an even number of them does not negate.
    """
    words = lexicon(language)
    before = re.split(_MARKS, folded[max(start - 60, 0) : start])[-1]
    before = _words_of(language, "contrasts").split(before)[-1]
    # 'Not loud and in a deep voice': what is joined stands for itself.
    before = before.split(fold(words.and_))[-1] if words.space else before
    # 'Neither slow nor fast' denies both.
    before = re.split(r"\b(?=neither\b|nor\b)", before)[-1]
    negation = _words_of(language, "negations")
    if not words.space:
        near = re.search(f"(?:{negation.pattern}|{_words_of(language, 'links').pattern})*$", before)
        number = len(negation.findall(near.group())) if near else 0
    else:
        number = len(negation.findall(" ".join(before.split()[-4:])))
    return number % 2 == 1 if words.cancels else number > 0
