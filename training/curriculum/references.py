"""Which of a clip's references are used, and which of them a sample gets (report 3.6).

What a recipe says of `clips` binds the clips that are spoken. A reference may be of poorer quality: from such pairs a
model learns that noise is not part of a voice. The reverse, a noisy clip with a clean reference, would teach it to add
noise. Pure functions over arrays, [R] being pairs of a clip and one of its references.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxmill.data.languages import base_language

if TYPE_CHECKING:
    from training.curriculum.recipe import ReferencesConfig

NOISIER_BY = 0.3
"""DNSMOS overall by which a reference has to be below its clip to be counted as noisier."""


def good_enough(
    target_quality_R: NDArray[np.float64], reference_quality_R: NDArray[np.float64], config: "ReferencesConfig"
) -> NDArray[np.bool_]:
    """Whether a reference is used for its clip, bool [R]. Qualities are DNSMOS overall, NaN where not measured."""
    usable = np.ones(len(target_quality_R), dtype=bool)
    if config.min_quality is not None:
        # A comparison with NaN is false: what was not measured is not known to be good enough.
        usable &= reference_quality_R >= config.min_quality
    if config.cleaner_by is not None:
        # Here a pair of which nothing is known stays.
        usable &= ~(reference_quality_R > target_quality_R + config.cleaner_by)
    return usable


def base_languages(languages: Sequence[str]) -> NDArray[np.int64]:
    """A number for the language of each code, int64 [languages]; a dialect has that of its language, "" has -1."""
    bases = [base_language(code) for code in languages]
    known = {base: number for number, base in enumerate(dict.fromkeys(bases))}
    return np.array([known[base] if base else -1 for base in bases], dtype=np.int64)


def across_languages(target_base_R: NDArray[np.int64], reference_base_R: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether clip and reference are in two languages, bool [R], by `base_languages` of theirs."""
    differs: NDArray[np.bool_] = target_base_R != reference_base_R
    return differs & (target_base_R >= 0) & (reference_base_R >= 0)


def preferred(across_R: NDArray[np.bool_], roll_R: NDArray[np.float64], share: float | None) -> NDArray[np.bool_]:
    """Whether a candidate comes before the other kind, bool [R]: another language's, for a share of the rolls.

    A clip that has candidates of one kind only gets those in any case, as none is preferred to another.

    Args:
        across_R: whether it is in another language. roll_R: a random number in [0, 1), the same for all candidates of
            a sample. share: of another language, 0..1; None prefers all alike.
    """
    if share is None:
        return np.ones(len(across_R), dtype=bool)
    chosen: NDArray[np.bool_] = across_R == (roll_R < share)
    return chosen


def expected_share(num_across: int, num: int, share: float | None) -> float:
    """How often a clip gets a reference in another language, 0..1, where `num_across` of its `num` are; 0 of none."""
    if share is not None and 0 < num_across < num:
        return share
    return num_across / max(num, 1)
