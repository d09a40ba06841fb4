"""What kinds of descriptions a stage will show, for `--check`: from labels alone, by some of each stream's clips."""

from collections.abc import Sequence

import numpy as np

from training.curriculum.corpus import Corpus
from training.curriculum.mixture import Stream
from voxmill.data.description_kinds import DESCRIBED_MODES, DescriptionShares, weights_of

SAMPLED = 1000
"""Clips of a stream that are looked at; the others are taken to be like them."""
_NAMES = ("the voice", "the delivery", "both")


def description_lines(
    corpus: Corpus, streams: Sequence[Stream], seconds: dict[str, float], shares: DescriptionShares
) -> tuple[str, ...]:
    """A line for each mode with descriptions: the parts of its target seconds that tell what.

    Args:
        seconds: drawn from each stream, by its name.
    """
    lines = []
    for mode in DESCRIBED_MODES:
        weights = np.asarray(weights_of(mode, shares))
        whole = np.zeros(len(_NAMES))
        for stream in streams:
            if stream.mode == mode:
                whole += seconds[stream.name] * _expected(corpus, stream, weights)
        if whole.sum() > 0:
            parts = ", ".join(f"{name} {part:.0%}" for name, part in zip(_NAMES, whole / whole.sum(), strict=True))
            lines.append(f"descriptions of {mode} tell {parts}")
    return tuple(lines)


def _expected(corpus: Corpus, stream: Stream, weights_K: np.ndarray) -> np.ndarray:
    """Expected part of each kind in the stream's seconds, [K]."""
    spread = np.linspace(0, len(stream.clips) - 1, min(SAMPLED, len(stream.clips))).astype(int)
    whole = np.zeros(len(weights_K))
    for clip in stream.clips[spread].tolist():
        axes = np.asarray(
            corpus.description_axis[corpus.description_starts[clip] : corpus.description_starts[clip + 1]]
        )
        shown = weights_K * (np.bincount(axes, minlength=len(weights_K)) > 0)
        if shown.sum():
            whole += float(corpus.seconds[clip]) * shown / shown.sum()
    return whole / whole.sum() if whole.sum() else whole
