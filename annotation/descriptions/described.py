"""A clip to describe, and what came of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation.descriptions.facts import AXES
from annotation.descriptions.verification import Evidence
from voxmill.data.records import Axis, Description, Fact, Granularity


@dataclass(frozen=True, slots=True)
class DescribedClip:
    """A clip to describe: `clip_id` names the content. `audio`: float32 [T] at 16 kHz, for writers that are sent it.

    text: what is said in it.
    """

    clip_id: str
    language: str
    evidence: Evidence
    audio: NDArray[np.float32] | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A text that was given up, in its last wording. The grammar's replaces it, unless that one failed as well."""

    axis: Axis
    granularity: Granularity
    language: str
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Descriptions:
    """All descriptions of one clip and what was dropped."""

    kept: tuple[Description, ...] = ()
    dropped: tuple[Dropped, ...] = ()


def facts_of(clip: DescribedClip, axis: Axis) -> list[Fact]:
    """A clip's facts of an axis."""
    return [fact for fact in clip.evidence.facts if axis in ("both", AXES[fact.attribute])]
