"""Descriptions from a grammar: true by construction and well-formed, in every language that has a lexicon.

They serve where no language model is configured, where it fails, and as the yardstick for its fluency. Wordings, their
order and the form of the sentence differ between clips by a hash of the clip, so the same clip is always described the
same.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from annotation.descriptions.facts import AXES
from annotation.descriptions.lexicons import Lexicon, filled, lexicon, wordings
from voxmill.core.hashing import sha256_text
from voxmill.data.records import Axis, Fact, Granularity

T = TypeVar("T")
_OF_THE_HEAD = ("gender", "age")


def sayable(facts: Sequence[Fact], language: str) -> list[Fact]:
    """Facts that the language has words for."""
    words = lexicon(language)
    return [fact for fact in facts if words.says(fact.attribute, fact.word)]


def write(facts: Mapping[str, str], axis: Axis, granularity: Granularity, language: str, seed: str) -> str:
    """A description that states all facts of the axis; '' where there are none.

    Args:
        facts: `{attribute: word}` (see `fact_table`); words that the lexicon lacks are left out.
        seed: chooses among wordings, such as the clip's id.
    """
    words = lexicon(language)
    mine = {name: word for name, word in facts.items() if axis in ("both", AXES[name]) and words.says(name, word)}
    if not mine:
        return ""
    writer = _Writer(mine, words, f"{seed}/{axis}/{granularity}")
    return writer.spelt(writer.text(granularity))


class _Writer:
    def __init__(self, facts: Mapping[str, str], words: Lexicon, seed: str):
        self._words, self._seed, self._facts = words, seed, facts
        self._gender = facts.get("gender", "")

    def text(self, granularity: Granularity) -> str:
        if granularity == "tags":
            return self._words.comma.join(self._tag(name) for name in self._ordered(list(self._facts), "tags"))
        with_clause = [name for name in self._facts if name in self._words.clauses]
        traits = [name for name in self._facts if name not in with_clause]
        styled = [name for name in with_clause if AXES[name] == "style"]
        if not styled:
            return self._design(granularity)
        clauses = self._clauses(with_clause)
        if not traits:
            return self._style(clauses, granularity)
        return self._both(clauses, granularity)

    def _design(self, granularity: Granularity) -> str:
        # A dialect stands beside the noun here; it may go with the verb where there is one.
        beside = [self._choose(name, wordings(self._words.design, name, word)) for name, word in self._rest()]
        join = self._words.space or self._words.comma
        if granularity == "paragraph" and self._adjectives() and self._has_head():
            noun = join.join([self._head().split("|")[0], *beside])
            is_so = filled(self._choose("voice_is", self._words.voice_is), voice=self._voice())
            return self._sentences([self._whole(noun, self._words.whole[1:]), is_so])
        noun = join.join([self._noun(), *beside])
        return noun if granularity == "phrase" else self._sentences([self._whole(noun)])

    def _style(self, clauses: list[str], granularity: Granularity) -> str:
        words = self._words
        if granularity == "phrase":
            return words.comma.join(clauses)
        verb = self._choose("verb", words.verbs)
        again = self._choose("again", [again for again in words.again if again.lower() not in verb.lower()])
        if granularity == "sentence" or len(clauses) < 3:
            return self._sentences([self._predicate(verb, clauses)])
        half = len(clauses) // 2
        return self._sentences([self._predicate(verb, clauses[:half]), self._predicate(again, clauses[half:])])

    def _both(self, clauses: list[str], granularity: Granularity) -> str:
        words = self._words
        noun, again = self._noun(), self._choose("again", words.again)
        relative = self._choose("relative", words.relative.get(self._gender) or words.relative[""])
        glue = "" if relative[0] in words.comma + "，" else words.space
        speaking = f"{noun}{glue}{relative}{'' if relative.endswith('，') else words.space}"
        if granularity == "phrase":
            return speaking + words.comma.join(clauses)
        verb = self._choose("predicate", words.predicates)
        forms = [self._predicate(f"{noun}{words.space or words.comma}{verb}", clauses)]
        forms.append(self._whole(speaking + self._listed(clauses), words.whole[1:]))
        if granularity == "sentence" or len(clauses) < 2:
            return self._sentences([self._choose("form", forms)])
        pronoun = self._choose("pronoun", words.pronouns.get(self._gender) or words.pronouns[""])
        subject = f"{pronoun}{words.space}{verb}".strip() if words.space else pronoun
        # A short noun phrase by itself, or a long one without a verb, reads unfinished.
        presented = self._whole(noun, words.whole[1:])
        half = (len(clauses) + 1) // 2
        later = [self._predicate(again, clauses[half:])] if clauses[half:] else []
        return self._sentences(
            self._choose(
                "form",
                [
                    [presented, self._predicate(subject, clauses[:half]), *later],
                    [self._predicate(f"{noun}{words.space or words.comma}{verb}", clauses[:half]), *later],
                    [self._predicate(self._choose("verb", words.verbs), clauses), presented],
                ],
            )
        )

    def _clauses(self, names: list[str]) -> list[str]:
        """Clauses in an order by chance, adverbs before phrases, which read better behind them."""
        words = self._words
        clauses = {name: self._choose(name, wordings(words.clauses, name, self._facts[name])) for name in names}
        order = self._ordered(list(clauses), "clauses")
        if words.space:
            order.sort(key=lambda name: not self._is_short(clauses[name]))
        return [clauses[name] for name in order]

    def _is_short(self, text: str) -> bool:
        """Whether it is one word, or one with `very`."""
        return len(text.removeprefix(f"{self._words.very} ").split()) == 1

    def _predicate(self, begin: str, clauses: Sequence[str]) -> str:
        return f"{begin}{self._words.space if begin else ''}{self._listed(clauses)}"

    def _listed(self, clauses: Sequence[str]) -> str:
        if len(clauses) == 1:
            return clauses[0]
        return self._words.comma.join(clauses[:-1]) + self._words.and_ + clauses[-1]

    def _whole(self, noun: str, frames: Sequence[str] = ()) -> str:
        return filled(self._choose("whole", frames or self._words.whole), noun=noun)

    def _noun(self) -> str:
        """The speaker with the adjectives of the voice."""
        if not self._adjectives():
            return self._head().split("|")[0]
        voice = self._voice()
        if not self._has_head():
            return filled(self._choose("alone", self._words.alone), voice=voice)
        return filled(self._choose("noun", self._words.nouns), head=self._head(), voice=voice)

    def _has_head(self) -> bool:
        return any(name in self._facts for name in _OF_THE_HEAD)

    def _head(self) -> str:
        return self._choose("head", self._words.heads[self._gender][self._facts.get("age", "")])

    def _adjectives(self) -> list[str]:
        return [name for name in self._facts if name in self._words.voice]

    def _voice(self) -> str:
        """Adjectives of the voice, short ones first."""
        names = self._ordered(self._adjectives(), "voice")
        adjectives = [self._choose(name, self._words.voice[name][self._facts[name]]) for name in names]
        if self._words.space:
            adjectives.sort(key=lambda adjective: not self._is_short(adjective.split("|")[0]))
        return self._words.joined(adjectives, self._choose("adjectives", self._words.adjectives))

    def _rest(self) -> list[tuple[str, str]]:
        """Traits that are neither of the head nor adjectives."""
        aside = (*_OF_THE_HEAD, *self._words.voice)
        return [(name, word) for name, word in self._facts.items() if name not in aside and name in self._words.design]

    def _tag(self, name: str) -> str:
        word = self._facts[name]
        if name in self._words.voice:
            adjective = self._choose(name, self._words.voice[name][word])
            return filled(self._words.voice_noun[0], voice=adjective)
        return self._choose(name, wordings(self._words.tags, name, word))

    def _sentences(self, texts: Sequence[str]) -> str:
        stop = self._words.stop
        spelt = [self.spelt(text) for text in texts]
        return stop.join(f"{text[0].upper()}{text[1:]}" for text in spelt) + stop.strip()

    def spelt(self, text: str) -> str:
        """The text with what its parts become where they meet."""
        for seam, written in self._words.spelling.items():
            text = re.sub(seam, written, text)
        return text

    def _choose(self, name: str, options: Sequence[T]) -> T:
        return options[int(sha256_text(f"{self._seed}/{name}")[:8], 16) % len(options)]

    def _ordered(self, names: Sequence[str], what: str) -> list[str]:
        return sorted(names, key=lambda name: sha256_text(f"{self._seed}/{what}/{name}"))
