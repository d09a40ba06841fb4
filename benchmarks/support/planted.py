"""Captions with planted claims: true and false ones about measured clips, in free style, in six languages.

Clauses are templates in `captions/`, which the reader's lexicon was not made from. A claim is planted only where the
measurement leaves no doubt: of a scale from 0.7 standard deviations on (1.7 where the clause says 'very', and for a
monotone), false ones on the other side of the middle, and well there where the clause denies the opposite.
"""

import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from annotation.descriptions.claims import read
from annotation.descriptions.verification import Evidence, VerificationConfig, verify_reading
from voxmill.data.verified import PRECISE, admitted

CAPTIONS = Path(__file__).resolve().parent / "captions"
LANGUAGES = ("en", "es", "fr", "it", "ru", "zh")
_SIDES = {"low": -1, "high": 1, "slow": -1, "fast": 1, "soft": -1, "strong": 1, "monotone": -1, "lively": 1}
_VERY = re.compile(r"\b(?:very|muy|très|molto|очень)\b|非常|很")
_DENIED = re.compile(r"\b(?:not|isn't|nada|no|pas|non|niente|не)\b|不")
_JOINS = {"en": " and ", "es": " y ", "fr": " et ", "it": " e ", "ru": " и ", "zh": "，而且"}
Clauses = dict[str, list[str]]


@dataclass(frozen=True)
class Caption:
    """A text about a clip; `false`: attributes about which it claims what is not so."""

    text: str
    language: str
    evidence: Evidence
    stated: frozenset[str]
    false: frozenset[str]


@dataclass
class Score:
    """Counts of one language."""

    outcomes: Counter[tuple[bool, str]]
    """By (whether a false claim was planted, kept | dropped | unread | open).

    Kept is what stage 3 takes by its usual rule; open: a claim's judges are unsure, so that it does not.
    """
    caught: Counter[str]
    planted: Counter[str]
    wrongly: Counter[str]
    seconds: float = 0.0

    def share(self, is_false: bool, outcome: str) -> float:
        total = sum(count for (kind, _), count in self.outcomes.items() if kind is is_false)
        return self.outcomes[is_false, outcome] / total if total else 0.0

    @property
    def unread(self) -> float:
        total = sum(self.outcomes.values())
        return sum(count for (_, outcome), count in self.outcomes.items() if outcome == "unread") / max(total, 1)


def read_clauses(name: str, language: str) -> Clauses:
    """The templates of a set, `open` or `held_out`, by `attribute/word`."""
    clauses: dict[str, Clauses] = yaml.safe_load((CAPTIONS / f"{name}.yaml").read_text(encoding="utf-8"))
    return clauses[language]


def plant(
    clips: Sequence[tuple[Evidence, str | None]], clauses: Clauses, language: str, count: int, seed: int = 0
) -> list[Caption]:
    """Captions of clips, every other one with one to four false claims.

    Args:
        clips: evidence, and the gender of the speaker where it is known.
    """
    captions: list[Caption] = []
    choose = random.Random(f"{seed}/{language}")
    while len(captions) < count:
        evidence, gender = choose.choice(clips)
        wanted_false = choose.randint(1, 4) if len(captions) % 2 else 0
        by_truth: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
        for key, some in clauses.items():
            attribute, word = key.split("/")
            for clause in some:
                truth = _is_true(attribute, word, clause, evidence, gender)
                if truth is not None:
                    by_truth[truth].setdefault(attribute, []).append(clause)
        false = choose.sample(sorted(by_truth[False]), min(wanted_false, len(by_truth[False])))
        true = [attribute for attribute in sorted(by_truth[True]) if attribute not in false]
        stated = choose.sample(true, min(choose.randint(1, 3), len(true)))
        if bool(false) is not bool(wanted_false) or len(stated) + len(false) < 2:
            continue
        parts = [choose.choice(by_truth[False][name]) for name in false]
        parts += [choose.choice(by_truth[True][name]) for name in stated]
        choose.shuffle(parts)
        text = _joined(parts, language, choose)
        captions.append(Caption(text, language, evidence, frozenset([*stated, *false]), frozenset(false)))
    return captions


def _is_true(attribute: str, word: str, clause: str, evidence: Evidence, gender: str | None) -> bool | None:
    """Whether a clause is true of a clip; None where the measurement leaves it open."""
    if attribute == "gender":
        return None if gender is None or "gender" not in evidence.answers else gender == word
    fact = evidence.fact(attribute)
    if fact is None:
        return None
    if attribute == "texture":
        return {word: True, {"rough": "clear", "clear": "rough"}[word]: False}.get(fact.word)
    register = evidence.fact("register")
    # 'A low voice' may be read of the clip or of the speaker.
    values = [
        one.z for one in (fact, register if attribute == "pitch" else None) if one is not None and one.z is not None
    ]
    if word not in _SIDES:
        return True if max(map(abs, values)) <= 0.2 else False if min(map(abs, values)) >= 1.2 else None
    sided = [value * _SIDES[word] for value in values]
    enough = 1.7 if _VERY.search(clause) or word == "monotone" else 0.7
    # 'Not fast' is wrong of what is fast, and right of all else.
    wrong = -0.9 if _DENIED.search(clause) else -0.2
    return True if min(sided) >= enough else False if max(sided) <= wrong else None


def _joined(parts: Sequence[str], language: str, choose: random.Random) -> str:
    stop, comma = ("。", "，") if language == "zh" else (". ", ", ")
    text = parts[0]
    for part in parts[1:]:
        join = choose.choice([stop, comma, comma, _JOINS[language], "；" if language == "zh" else "; "])
        text += join + part
    sentences = [sentence[:1].upper() + sentence[1:] for sentence in text.split(stop)]
    return stop.join(sentences) + stop.strip()


def score(captions: Sequence[Caption]) -> tuple[Score, list[str]]:
    """What the verifier makes of captions, and those that it gets wrong, each in a line."""
    result, wrong = Score(Counter(), Counter(), Counter(), Counter()), []
    config = VerificationConfig(only_facts=False)
    for caption in captions:
        started = time.perf_counter()
        checked = verify_reading(read(caption.text, caption.language), "both", caption.evidence, config)
        result.seconds += time.perf_counter() - started
        taken = checked.passed and all(one.verdict in admitted(PRECISE, one.attribute) for one in checked.verdicts)
        outcome = "dropped" if checked.failed else "unread" if checked.unread else "kept" if taken else "open"
        result.outcomes[bool(caption.false), outcome] += 1
        failed = {"pitch" if one.attribute == "register" else one.attribute for one in checked.failed}
        result.planted.update(caption.false)
        result.caught.update(failed & caption.false)
        result.wrongly.update(failed - caption.false)
        if outcome == ("kept" if caption.false else "dropped") or outcome in ("unread", "open"):
            said = [f"{v.attribute}={v.claimed}:{v.verdict}" for v in checked.verdicts]
            wrong.append(f"{outcome} {sorted(caption.false)} | {caption.text} | {said} | {checked.unread}")
    return result, wrong
