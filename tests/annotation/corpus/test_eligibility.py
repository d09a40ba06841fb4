"""Modes follow what a clip has, stages the report's rules."""

from dataclasses import replace

import pytest

from annotation.corpus.eligibility import Labels, ModesConfig, teaches
from voxmill.data.records import Axis, ClaimOutcome, ClaimVerdict, Description, FactWord

CONFIG = ModesConfig()


def description(axis: Axis, verdict: ClaimOutcome = "pass") -> Description:
    return Description(
        axis=axis,
        granularity="sentence",
        language="en",
        text="High.",
        facts=(FactWord("pitch", "high"),),
        generator="template",
        verdicts=(
            ClaimVerdict(attribute="pitch", claimed="high", predicted="high", verdict="pass", probability=0.9),
            ClaimVerdict(attribute="emotion", claimed="sad", predicted=None, verdict=verdict),
        ),
        recall=1.0,
    )


FULL = Labels(10.0, "Hello.", "native", [description("design"), description("style")], 2, quality=3.5, percentile=0.9)
ALL = ("basic", "continuation", "design", "reference", "controllable")


def test_a_clip_with_everything_teaches_everything() -> None:
    found = teaches(FULL, CONFIG)
    assert found.modes == ALL and found.why_not == {}
    assert found.stages == {"stage1": ("basic", "continuation"), "stage2": ALL, "stage3": ALL}


@pytest.mark.parametrize(
    ("change", "modes"),
    [
        ({"descriptions": [], "num_references": 0}, ("basic", "continuation")),
        ({"descriptions": []}, ("basic", "continuation", "reference")),
        ({"num_references": 0}, ("basic", "continuation", "design")),
        ({"descriptions": [description("style")]}, ("basic", "continuation", "reference", "controllable")),
        ({"descriptions": [description("style")], "num_references": 0}, ("basic", "continuation")),
        ({"text": " "}, ()),
    ],
)
def test_modes_need_what_they_teach(change: dict[str, object], modes: tuple[str, ...]) -> None:
    assert teaches(replace(FULL, **change), CONFIG).modes == modes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "why_not"),
    [
        ({"seconds": 61.0}, {"stage1": "too_long"}),
        ({"seconds": 200.0}, {"stage1": "too_long", "stage2": "too_long"}),
        ({"seconds": 301.0}, {"stage1": "too_long", "stage2": "too_long", "stage3": "too_long"}),
        ({"seconds": 1.0}, {"stage3": "too_short"}),
        ({"quality": 2.5}, {"stage3": "quality"}),
        ({"quality": None}, {"stage3": "quality"}),
        ({"origin": "separated"}, {"stage3": "origin_separated"}),
        ({"origin": "synthetic"}, {"stage1": "synthetic", "stage3": "origin_synthetic"}),
        ({"text": ""}, dict.fromkeys(("stage1", "stage2", "stage3"), "no_transcript")),
    ],
)
def test_every_stage_says_why_not(change: dict[str, object], why_not: dict[str, str]) -> None:
    found = teaches(replace(FULL, **change), CONFIG)  # type: ignore[arg-type]
    assert found.why_not == why_not and not found.why_not.keys() & found.stages.keys()


@pytest.mark.parametrize("change", [{"percentile": 0.2}, {"percentile": None}])
def test_a_flat_clip_enters_stage_three_without_its_descriptions(change: dict[str, object]) -> None:
    found = teaches(replace(FULL, **change), CONFIG)  # type: ignore[arg-type]
    assert found.stages["stage3"] == ("basic", "continuation", "reference") and found.stages["stage2"] == ALL
    assert teaches(replace(FULL, percentile=0.2), ModesConfig(stage3_min_percentile=None)).stages["stage3"] == ALL


def test_an_abstained_claim_is_enough_for_stage_two_only() -> None:
    open_claims = replace(FULL, descriptions=[description("design"), description("style", "abstain")])
    assert teaches(open_claims, CONFIG).stages["stage3"] == ("basic", "continuation", "design", "reference")
    assert teaches(open_claims, CONFIG).stages["stage2"] == ALL
    assert teaches(open_claims, ModesConfig(stage3_verified_only=False)).stages["stage3"] == ALL
