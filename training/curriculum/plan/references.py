"""What kinds of references a stage will draw, for `--check`: from labels alone, by a sample of each stream's clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.curriculum.corpus import Corpus
from training.curriculum.mixture import Stream
from training.curriculum.recipe import ReferencesConfig
from training.curriculum.references import NOISIER_BY, expected_share

SAMPLED = 1000
"""Clips of a stream that are looked at; the others are taken to be like them."""


@dataclass(frozen=True, slots=True)
class ReferenceKinds:
    """Parts of the target seconds with a reference, 0..1, and how many references a clip has on average."""

    another_language: float
    noisier: float
    """Whose reference has at least `NOISIER_BY` less DNSMOS than the clip."""
    cleaner: float
    """Whose reference has at least as much more."""
    candidates: float

    def line(self) -> str:
        """For people."""
        return (
            f"of the seconds with a reference: {self.another_language:.1%} in another language than it, "
            f"{self.noisier:.1%} with a noisier one, {self.cleaner:.1%} with a cleaner one (by {NOISIER_BY} DNSMOS); "
            f"{self.candidates:.1f} references a clip to draw from"
        )


def reference_kinds(
    corpus: Corpus, streams: Sequence[Stream], seconds: dict[str, float], config: ReferencesConfig
) -> ReferenceKinds | None:
    """What is to be expected of the references; None where no stream has any.

    Args:
        seconds: drawn from each stream, by its name.
    """
    whole = np.zeros(4)
    total = 0.0
    for stream in streams:
        if stream.mode not in ("reference", "controllable") or not seconds[stream.name]:
            continue
        spread = np.linspace(0, len(stream.clips) - 1, min(SAMPLED, len(stream.clips))).astype(int)
        clips = [int(clip) for clip in stream.clips[spread]]
        weights = corpus.seconds[np.array(clips)]
        kinds = np.array([_kinds_of(clip, corpus, config) for clip in clips])
        whole += seconds[stream.name] * (kinds * weights[:, None]).sum(axis=0) / weights.sum()
        total += seconds[stream.name]
    if not total:
        return None
    return ReferenceKinds(*(whole / total).tolist())


def _kinds_of(clip: int, corpus: Corpus, config: ReferencesConfig) -> tuple[float, float, float, float]:
    """Of one clip, in the order of `ReferenceKinds`."""
    candidates = corpus.candidates(clip)
    is_across = corpus.is_across(clip, candidates)
    share = expected_share(int(is_across.sum()), len(candidates), config.cross_lingual)
    # Either kind in its share, and within it any with the same chance.
    weights = np.where(is_across, share / max(is_across.sum(), 1), (1 - share) / max((~is_across).sum(), 1))
    better = corpus.quality[candidates] - corpus.quality[clip]
    noisier, cleaner = weights[better <= -NOISIER_BY].sum(), weights[better >= NOISIER_BY].sum()
    return share, float(noisier), float(cleaner), float(len(candidates))
