"""Modes follow what a clip has, stages the report's rules."""

from dataclasses import replace
from typing import Any

import pytest

from annotation.corpus.eligibility import Labels, ModesConfig, eligibility

CONFIG = ModesConfig()
FULL = Labels(
    seconds=10.0,
    text="Hello.",
    origin="native",
    axes={"design", "style"},
    verified_axes={"design", "style"},
    num_references=2,
    quality=3.5,
    percentile=0.9,
)
ALL = ("basic", "continuation", "design", "reference", "controllable")


def test_a_clip_with_everything_teaches_everything() -> None:
    full = eligibility(FULL, CONFIG)
    assert full.modes == ALL and full.why_not == {}
    assert full.by_stage == {1: ("basic", "continuation"), 2: ALL, 3: ALL}


@pytest.mark.parametrize(
    ("change", "modes"),
    [
        ({"axes": (), "num_references": 0}, ("basic", "continuation")),
        ({"axes": ()}, ("basic", "continuation", "reference")),
        ({"num_references": 0}, ("basic", "continuation", "design")),
        ({"axes": {"design"}}, ("basic", "continuation", "design", "reference")),
        ({"axes": {"style"}}, ALL),
        ({"axes": {"both"}}, ALL),
        ({"axes": {"style"}, "num_references": 0}, ("basic", "continuation", "design")),
        ({"text": " "}, ()),
    ],
)
def test_a_mode_needs_its_labels(change: dict[str, Any], modes: tuple[str, ...]) -> None:
    assert eligibility(replace(FULL, **change), CONFIG).modes == modes


@pytest.mark.parametrize(
    ("change", "why_not"),
    [
        ({"seconds": 61.0}, {1: "too_long"}),
        ({"seconds": 200.0}, {1: "too_long", 2: "too_long"}),
        ({"seconds": 301.0}, {1: "too_long", 2: "too_long", 3: "too_long"}),
        ({"seconds": 1.0}, {3: "too_short"}),
        ({"quality": 2.5}, {3: "quality"}),
        ({"quality": None}, {3: "quality"}),
        ({"origin": "separated"}, {3: "origin_separated"}),
        ({"origin": "synthetic"}, {1: "synthetic", 3: "origin_synthetic"}),
        ({"text": ""}, dict.fromkeys((1, 2, 3), "no_transcript")),
    ],
)
def test_a_stage_that_a_clip_may_not_enter_has_a_reason(change: dict[str, Any], why_not: dict[int, str]) -> None:
    result = eligibility(replace(FULL, **change), CONFIG)
    assert result.why_not == why_not and result.why_not.keys() ^ result.by_stage.keys() == {1, 2, 3}


@pytest.mark.parametrize("change", [{"percentile": 0.2}, {"percentile": None}])
def test_a_flat_clip_enters_stage_three_without_its_descriptions(change: dict[str, Any]) -> None:
    flat = eligibility(replace(FULL, **change), CONFIG)
    assert flat.by_stage[3] == ("basic", "continuation", "reference") and flat.by_stage[2] == ALL
    assert eligibility(replace(FULL, percentile=0.2), ModesConfig(stage3_min_percentile=None)).by_stage[3] == ALL


def test_an_abstained_claim_is_enough_for_stage_two_only() -> None:
    open_claims = replace(FULL, verified_axes={"design"})
    assert eligibility(open_claims, CONFIG).by_stage[3] == ("basic", "continuation", "design", "reference")
    assert eligibility(open_claims, CONFIG).by_stage[2] == ALL
