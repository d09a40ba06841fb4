"""Which modes a clip can teach and which curriculum stages it may enter (report sections 3.5 and 3.6).

Modes are those of inference: `basic` and `continuation` need a transcript alone (continuation is plain TTS whose first
part is given), `design` a description of any kind, `reference` another clip of the speaker, `controllable` a reference
and a description of the style, with or without the voice. Which kinds a run shows is its recipe's. Stages differ in
length and care: 1 takes plain speech up to 60 s; 2 takes every mode up to three minutes, synthesised clips too; 3 takes
2 s to 5 min of native, clean recordings, expressive and precisely annotated where the mode is controllable. Pure
functions over labels: a changed rule runs no model again.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from voxmill.core.config import Config
from voxmill.data.records import Axis, CurriculumStage, Eligibility, Mode, Origin
from voxmill.data.verified import PRECISE, VerifiedRule


class ModesConfig(Config):
    """Rules of the stages; seconds, DNSMOS overall (1..5), shares of 0..1. None switches a rule off.

    `stage3_min_percentile`: expressiveness among all clips, required of described modes only. `stage3_verified`:
    which descriptions count there; an abstention is not precise annotation.
    """

    renamed: ClassVar[dict[str, str]] = {"stage3_verified_only": "stage3_verified, as {default: pass}, or null"}

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
    stage3_verified: VerifiedRule | None = PRECISE
    """Verdicts on descriptions that stage 3 takes, by attribute, as `clips.verified` of a recipe; null takes all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the rules look at.

    axes: of the clip's descriptions. verified_axes: of those that `stage3_verified` admits. quality: DNSMOS overall,
    1..5. percentile: of expressiveness among all clips, 0..1. None where it was not measured.
    """

    seconds: float
    text: str
    origin: Origin
    axes: Collection[Axis]
    verified_axes: Collection[Axis]
    num_references: int
    quality: float | None = None
    percentile: float | None = None


def eligibility(labels: Labels, config: ModesConfig) -> Eligibility:
    """Modes and curriculum stages of one clip; every stage that it may not enter has a reason code."""
    modes = _modes(labels, labels.axes)
    if not modes:
        return Eligibility(modes=(), by_stage={}, why_not=dict.fromkeys((1, 2, 3), "no_transcript"))
    reasons: dict[CurriculumStage, str] = {
        1: _stage1(labels, config),
        2: _stage2(labels, config),
        3: _stage3(labels, config),
    }
    allowed: dict[CurriculumStage, tuple[Mode, ...]] = {
        1: tuple(mode for mode in modes if mode in ("basic", "continuation")),
        2: modes,
        3: _stage3_modes(labels, config),
    }
    return Eligibility(
        modes=modes,
        by_stage={stage: allowed[stage] for stage, reason in reasons.items() if not reason},
        why_not={stage: reason for stage, reason in reasons.items() if reason},
    )


def _modes(labels: Labels, axes: Collection[Axis]) -> tuple[Mode, ...]:
    if not labels.text.strip():
        return ()
    modes: list[Mode] = ["basic", "continuation"]
    if axes:
        modes.append("design")
    if labels.num_references:
        modes.append("reference")
        if "style" in axes or "both" in axes:
            modes.append("controllable")
    return tuple(modes)


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
    flat = config.stage3_min_percentile is not None and not (labels.percentile or 0.0) >= config.stage3_min_percentile
    if flat:
        return _modes(labels, ())
    return _modes(labels, labels.verified_axes)
