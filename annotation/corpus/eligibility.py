"""Which modes a clip can teach and which curriculum stages it may enter (report sections 3.5 and 3.6).

Modes are those of inference: `basic` and `continuation` need a transcript alone (continuation is plain TTS whose first
part is given), `design` a description of the voice, `reference` another clip of the speaker, `controllable` a reference
and a description of the style. Stages differ in length and care: 1 takes plain speech up to 60 s; 2 takes every mode up
to three minutes, synthesised clips too; 3 takes 2 s to 5 min of native, clean recordings, expressive and precisely
annotated where the mode is controllable. Pure functions over labels: a changed rule runs no model again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from voxmill.core.config import Config
from voxmill.data.records import Description, Mode, Origin

Stage = Literal["stage1", "stage2", "stage3"]


class ModesConfig(Config):
    """Rules of the stages; seconds, DNSMOS overall (1..5), shares of 0..1. None switches a rule off.

    `stage3_min_percentile`: expressiveness among all clips, asked of described modes only. `stage3_verified_only`: only
    descriptions of which every claim passed count there; an abstention is not precise annotation.
    """

    stage1_max_seconds: float = 60.0
    """Longest clip of stage 1, in seconds."""
    stage2_max_seconds: float = 180.0
    """Longest clip of stage 2, in seconds."""
    stage3_min_seconds: float = 2.0
    """Shortest clip of stage 3, in seconds."""
    stage3_max_seconds: float = 300.0
    """Longest clip of stage 3, in seconds."""
    stage3_min_quality: float | None = 3.0
    """Lowest DNSMOS overall (1..5) of stage 3; null for no floor."""
    stage3_min_percentile: float | None = Field(0.5, ge=0, le=1)
    """Stage 3, described modes: lowest expressiveness as a share of all clips (0..1); null for no floor."""
    stage3_origins: tuple[Origin, ...] = ("native",)
    """Stage 3 takes clips of these origins: native, separated, synthetic."""
    stage3_verified_only: bool = True
    """Stage 3 takes only descriptions of which every claim passed."""


@dataclass(frozen=True)
class Labels:
    """What the rules look at. `quality`: DNSMOS overall, `percentile`: of expressiveness; None where not measured."""

    seconds: float
    text: str
    origin: Origin
    descriptions: Sequence[Description]
    num_references: int
    quality: float | None = None
    percentile: float | None = None


@dataclass(frozen=True)
class Teaches:
    """`modes` of the clip, `stages` it may enter, and with which modes; `why_not` has a reason for every other stage."""

    modes: tuple[Mode, ...]
    stages: dict[Stage, tuple[Mode, ...]]
    why_not: dict[Stage, str] = field(default_factory=dict)


def teaches(labels: Labels, config: ModesConfig) -> Teaches:
    """Modes and stages of one clip."""
    modes = _modes(labels, labels.descriptions)
    stages: dict[Stage, tuple[Mode, ...]] = {}
    why_not: dict[Stage, str] = {}
    checks: dict[Stage, str] = {
        "stage1": _stage1(labels, config),
        "stage2": _stage2(labels, config),
        "stage3": _stage3(labels, config),
    }
    allowed: dict[Stage, tuple[Mode, ...]] = {
        "stage1": tuple(mode for mode in modes if mode in ("basic", "continuation")),
        "stage2": modes,
        "stage3": _stage3_modes(labels, config),
    }
    for stage, reason in checks.items():
        if not modes:
            why_not[stage] = "no_transcript"
        elif reason:
            why_not[stage] = reason
        else:
            stages[stage] = allowed[stage]
    return Teaches(modes, stages, why_not)


def _modes(labels: Labels, descriptions: Sequence[Description]) -> tuple[Mode, ...]:
    if not labels.text.strip():
        return ()
    axes = {description.axis for description in descriptions}
    found: list[Mode] = ["basic", "continuation"]
    if "design" in axes:
        found.append("design")
    if labels.num_references:
        found.append("reference")
        if "style" in axes:
            found.append("controllable")
    return tuple(found)


def _stage1(labels: Labels, config: ModesConfig) -> str:
    if labels.origin == "synthetic":
        return "synthetic"
    return "too_long" if labels.seconds > config.stage1_max_seconds else ""


def _stage2(labels: Labels, config: ModesConfig) -> str:
    return "too_long" if labels.seconds > config.stage2_max_seconds else ""


def _stage3(labels: Labels, config: ModesConfig) -> str:
    if labels.origin not in config.stage3_origins:
        return f"origin_{labels.origin}"
    if labels.seconds < config.stage3_min_seconds:
        return "too_short"
    if labels.seconds > config.stage3_max_seconds:
        return "too_long"
    # What was not measured is not known to be good.
    if config.stage3_min_quality is not None and not (labels.quality or 0.0) >= config.stage3_min_quality:
        return "quality"
    return ""


def _stage3_modes(labels: Labels, config: ModesConfig) -> tuple[Mode, ...]:
    descriptions = list(labels.descriptions)
    if config.stage3_verified_only:
        descriptions = [d for d in descriptions if all(verdict.verdict == "pass" for verdict in d.verdicts)]
    flat = config.stage3_min_percentile is not None and not (labels.percentile or 0.0) >= config.stage3_min_percentile
    return _modes(labels, [] if flat else descriptions)
