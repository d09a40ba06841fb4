"""Which verdicts on a description's claims a rule admits, by attribute: `{gender: pass, accent: unjudged_ok}`."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator

from voxmill.data.records import Description

Admission = Literal["pass", "unjudged_ok", "abstain_ok", "unread_ok"]
ATTRIBUTES = (
    *("gender", "age", "register", "texture", "accent", "dialect", "scenario", "phonation", "channel", "laughter"),
    *("pitch", "intonation", "rate", "energy", "pauses", "emotion", "style", "emphasis", "dynamics", "ending"),
)
"""What descriptions make claims about."""
DEFAULT, UNREAD = "default", "unread"
ADMITTED: dict[str, tuple[str, ...]] = {
    "pass": ("pass",),
    "unjudged_ok": ("pass", "unjudged"),
    "abstain_ok": ("pass", "unjudged", "abstain"),
}
"""Verdicts that an admission takes; a failed claim is never taken."""


def _checked(rule: dict[str, Admission]) -> dict[str, Admission]:
    for name, admission in rule.items():
        if name not in (*ATTRIBUTES, DEFAULT, UNREAD):
            raise ValueError(f"{name} is no attribute; there are {', '.join((*ATTRIBUTES, DEFAULT, UNREAD))}")
        if (admission == "unread_ok") != (name == UNREAD):
            raise ValueError(
                f"{name}: {admission} does not fit; write unread: unread_ok, and of attributes one of "
                "pass, unjudged_ok, abstain_ok"
            )
    return rule


VerifiedRule = Annotated[dict[str, Admission], AfterValidator(_checked)]
"""By attribute which verdicts are admitted; `default` of attributes that are not named: pass where it is left out.

`unread: unread_ok` admits texts with parts that could not be read; without it they are not admitted.
"""
PRECISE: dict[str, Admission] = {
    "default": "pass",
    "age": "unjudged_ok",
    "accent": "unjudged_ok",
    "dialect": "unjudged_ok",
    "scenario": "unjudged_ok",
    "emotion": "unjudged_ok",
    "style": "unjudged_ok",
    "emphasis": "unjudged_ok",
    "laughter": "unjudged_ok",
}
"""What stage 3 takes: all that can be judged has passed."""


def admitted(rule: Mapping[str, Admission], attribute: str) -> tuple[str, ...]:
    """The verdicts that a rule takes of an attribute."""
    return ADMITTED[rule.get(attribute, rule.get(DEFAULT, "pass"))]


def admits(rule: Mapping[str, Admission] | None, description: Description) -> bool:
    """Whether a rule takes a description; no rule takes all."""
    if rule is None:
        return True
    if description.unread and UNREAD not in rule:
        return False
    return all(verdict.verdict in admitted(rule, verdict.attribute) for verdict in description.verdicts)
