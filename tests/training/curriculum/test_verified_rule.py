"""A recipe's rule about verdicts: which descriptions it admits, the same in Arrow columns and over records."""

import numpy as np
import pyarrow as pa
import pytest

from annotation.descriptions.facts import AXES
from training.curriculum.index.rules import BITS, usable_descriptions
from training.curriculum.recipe import load_recipe
from voxmill.core.errors import UserError
from voxmill.data.description_kinds import DEFAULT_SHARES
from voxmill.data.records import ClaimVerdict, Description
from voxmill.data.verified import ATTRIBUTES, PRECISE, VerifiedRule, admits


def described(text: str, unread: tuple[str, ...] = (), **verdicts: str) -> Description:
    claims = tuple(
        ClaimVerdict(attribute=name, claimed="any", predicted=None, verdict=verdict)  # type: ignore[arg-type]
        for name, verdict in verdicts.items()
    )
    return Description(
        axis="design",
        granularity="phrase",
        language="en",
        text=text,
        generator="m",
        verdicts=claims,
        unread=unread,
    )


TEXTS = [
    described("all passed", gender="pass", register="pass"),
    described("an accent", gender="pass", accent="unjudged"),
    described("nobody knows the gender", gender="unjudged"),
    described("unsure", gender="pass", register="abstain"),
    described("wrong", accent="fail"),
    described("not read", ("like velvet",), gender="pass"),
]


@pytest.mark.parametrize(
    ("rule", "taken"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        ({}, [0]),
        ({"default": "pass"}, [0]),
        (PRECISE, [0, 1]),
        ({"default": "unjudged_ok"}, [0, 1, 2]),
        ({"default": "abstain_ok", "gender": "pass"}, [0, 1, 3]),
        ({"unread": "unread_ok"}, [0, 5]),
    ],
)
@pytest.mark.parametrize("has_unread", [True, False])
def test_a_rule_takes_the_same_of_columns_and_of_records(
    rule: VerifiedRule | None, taken: list[int], has_unread: bool
) -> None:
    rows = [
        {
            "axis": one.axis,
            "text": one.text,
            "verdicts": [{"attribute": v.attribute, "verdict": v.verdict} for v in one.verdicts],
            **({"unread": list(one.unread)} if has_unread else {}),
        }
        for one in TEXTS
    ]
    found = usable_descriptions(
        pa.array([rows]), np.array([BITS["design"]], np.uint8), shares=DEFAULT_SHARES, rule=rule
    )
    # An older dataset does not tell what could not be read.
    wanted = taken if has_unread or rule is None else sorted({*taken, *([5] if 0 in taken else [])})
    assert found.texts == [TEXTS[number].text for number in wanted]
    if has_unread:
        assert [number for number, one in enumerate(TEXTS) if admits(rule, one)] == taken


def test_every_attribute_of_a_description_may_be_named() -> None:
    assert set(AXES) <= set(ATTRIBUTES)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("clips.verified={gendr: pass}", "gendr is no attribute"),
        ("clips.verified={gender: unread_ok}", "gender: unread_ok does not fit"),
        ("clips.verified={gender: maybe}", "clips.verified"),
        ("clips.verified_only=true", "clips.verified, as {default: pass}"),
    ],
)
def test_wrong_rules_and_the_old_key_are_answered_in_one_line(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe("tiny_stage3", [setting])
    assert "\n" not in str(caught.value)
