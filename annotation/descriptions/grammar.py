"""Descriptions from a grammar: true by construction and well-formed, in every language that has a lexicon.

They serve where no language model is configured, where it fails, and as the yardstick for its fluency. Wordings differ
between clips by a hash of the clip and the attribute, so the same clip is always described the same.
"""

from collections.abc import Mapping, Sequence

from annotation.descriptions.facts import AXES
from annotation.descriptions.lexicons import Lexicon, lexicon, wordings
from voxmill.core.hashing import sha256_text
from voxmill.data.records import Axis, Granularity

GRANULARITIES: tuple[Granularity, ...] = ("tags", "phrase", "sentence", "paragraph")


def write(facts: Mapping[str, str], axis: Axis, granularity: Granularity, language: str, seed: str) -> str:
    """A description of the axis's facts; '' where there are none.

    Args:
        facts: `{attribute: word}` of both axes (see `fact_table`); words that the lexicon lacks are left out.
        seed: chooses among wordings, such as the clip's id.
    """
    words = lexicon(language)
    mine = {name: word for name, word in facts.items() if AXES[name] == axis and wordings(words.tags, name, word)}
    if not mine:
        return ""
    choose = _Choice(seed)
    if granularity == "tags":
        return words.comma.join(choose(name, wordings(words.tags, name, word)) for name, word in mine.items())
    if axis == "design":
        return _design(mine, words, choose, whole=granularity != "phrase")
    clauses = [choose(name, wordings(words.clauses, name, word)) for name, word in mine.items()]
    if granularity == "phrase":
        return words.comma.join(clauses)
    if granularity == "sentence" or len(clauses) < 3:
        return _sentence(f"{choose('verb', words.verbs)}{_space(words)}{_listed(clauses, words)}", words)
    first, second = clauses[: len(clauses) // 2], clauses[len(clauses) // 2 :]
    one = _sentence(f"{choose('verb', words.verbs)}{_space(words)}{_listed(first, words)}", words)
    two = _sentence(f"{choose('again', words.again)}{_space(words)}{_listed(second, words)}", words)
    return f"{one}{words.stop.removeprefix('.').removeprefix('。')}{two}"


class _Choice:
    def __init__(self, seed: str):
        self._seed = seed

    def __call__(self, name: str, choices: Sequence[str]) -> str:
        return choices[int(sha256_text(f"{self._seed}/{name}")[:8], 16) % len(choices)]


def _design(facts: Mapping[str, str], words: Lexicon, choose: _Choice, whole: bool) -> str:
    head = choose("head", words.heads[facts.get("gender", "")][facts.get("age", "")])
    rest = [choose(name, words.design[name][word]) for name, word in facts.items() if name in words.design]
    separator = words.comma if not _space(words) else " "
    text = separator.join([head, *rest])
    return _sentence(text, words) if whole else text


def _listed(clauses: Sequence[str], words: Lexicon) -> str:
    if len(clauses) == 1:
        return clauses[0]
    return words.comma.join(clauses[:-1]) + words.and_ + clauses[-1]


def _space(words: Lexicon) -> str:
    """Languages that end a sentence without a space write none between words."""
    return " " if words.stop.endswith(" ") else ""


def _sentence(text: str, words: Lexicon) -> str:
    return text[0].upper() + text[1:] + words.stop.strip()
