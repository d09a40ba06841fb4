"""Which facts a description states: what stands out before what is ordinary, and more of them the longer it is.

Report section 3.6: 'free-form natural-language descriptions at varying granularities'. A shorter text of a clip states
a part of what a longer one does, and a text that would state no more than a shorter one is left out.
"""

from collections.abc import Sequence

from annotation.descriptions.facts import AXES
from voxmill.core.hashing import stable_fraction
from voxmill.data.records import Axis, Fact, Granularity

GRANULARITIES: tuple[Granularity, ...] = ("tags", "phrase", "sentence", "paragraph")
MOST = 8
"""Facts of one text at most."""
# How many facts a text of each granularity states; the first of them are the medians.
_COUNTS = (*[(1, 2, 3, 5)] * 5, (1, 2, 4, 7), (1, 3, 4, 6), (2, 3, 5, MOST))
_ORDINARY = ("medium", "moderate", "some", "neutral", "falling")
"""Words of what is usual: most statements fall at their end."""
_CLASS = 1.5
"""How much a class stands out, in standard deviations of what is measured (assumed)."""
_GENDER = 1.0
"""Almost every text has the gender, but it says little by itself."""


def choose_facts(
    facts: Sequence[Fact], axis: Axis, granularities: Sequence[Granularity], seed: str
) -> dict[Granularity, list[Fact]]:
    """Facts of the texts of a clip, by granularity; one that would state no more than a shorter one is not there.

    Args:
        facts: of both axes, each of which can be said.
        seed: of the clip and the wording; another one takes other facts that stand out alike.
    """
    order = _in_order(facts, axis, seed)
    least = 2 if axis == "both" else 1
    if len(order) < least:
        return {}
    counts = _COUNTS[int(stable_fraction(f"{seed}/{axis}/counts") * len(_COUNTS))]
    chosen: dict[Granularity, list[Fact]] = {}
    stated = 0
    for granularity, count in zip(GRANULARITIES, counts, strict=True):
        number = min(max(count, least), len(order))
        # Tags and a phrase of both axes state two facts each, in other words.
        repeats = axis == "both" and granularity == "phrase" and number == stated
        if granularity in granularities and (number > stated or repeats):
            chosen[granularity] = order[:number]
            stated = number
    return chosen


def prominence(fact: Fact) -> float:
    """How much a fact stands out, in standard deviations; 0 for what is ordinary."""
    if fact.word in _ORDINARY:
        return 0.0
    if fact.attribute == "gender":
        return _GENDER
    return _CLASS if fact.z is None else min(abs(fact.z), 3.0)


def _in_order(facts: Sequence[Fact], axis: Axis, seed: str) -> list[Fact]:
    """The axis's facts, those that stand out most first; of `both`, one of each axis leads."""

    def rank(fact: Fact) -> float:
        chance = stable_fraction(f"{seed}/{axis}/{fact.attribute}")
        size = prominence(fact)
        return -(size + 0.8 * chance) if size else 1.0 - chance

    mine = [fact for fact in facts if axis in ("both", AXES[fact.attribute])]
    if axis == "both":
        mine = _one_pitch(mine)
    order = sorted(mine, key=rank)
    traits, styles = ([fact for fact in order if AXES[fact.attribute] == one] for one in ("design", "style"))
    if axis == "both":
        if not traits or not styles:
            return []
        leading = [traits[0], styles[0]]
        return [*leading, *(fact for fact in order if fact not in leading)]
    if axis == "design":
        # The gender says too little to stand alone, and too much to be left out of anything longer.
        return [
            *[fact for fact in order if fact.attribute != "gender"][:1],
            *[fact for fact in order if fact.attribute == "gender"],
            *[fact for fact in order if fact.attribute != "gender"][1:],
        ]
    return order


def _one_pitch(facts: list[Fact]) -> list[Fact]:
    """Facts without the clip's pitch or the voice's: near to each other they say one thing, and far apart two.

    A deep voice that speaks high sounds like a contradiction to whoever reads it, so there the clip's own stays.
    """
    of = {fact.attribute: fact for fact in facts if fact.attribute in ("pitch", "register")}
    if len(of) < 2:
        return facts
    pitch, register = of["pitch"].z or 0.0, of["register"].z or 0.0
    dropped = "register" if abs(pitch - register) > 1 else "pitch"
    return [fact for fact in facts if fact.attribute != dropped]
