"""Words that stand out of a clip by energy, length and pitch together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from voxmill.data.records import StressedWord, Word

HOP_SECONDS = 0.02
MIN_WORDS = 4
"""With fewer words there is nothing to stand out of."""
CANDIDATE_FROM, MAX_CANDIDATES = 0.8, 3
"""Words that are kept: from this score on, so many at most; a fact asks for more."""
_FLOORS = (2.0, 0.25, 1.5)
"""Least spread, in dB, of the logarithm of the length, and in semitones: even speech has no emphasis."""


def candidates(
    level_db: np.ndarray, f0: np.ndarray, words: Sequence[Word], units: Sequence[int]
) -> tuple[StressedWord, ...]:
    """The words that stand out most, in order; arguments as for `emphasis_scores`."""
    scores = emphasis_scores(level_db, f0, words, units)
    if scores is None:
        return ()
    best = [n for n in np.argsort(-np.nan_to_num(scores, nan=-9.0))[:MAX_CANDIDATES] if scores[n] >= CANDIDATE_FROM]
    return tuple(
        StressedWord(word=words[n].word, start=words[n].start, end=words[n].end, score=round(float(scores[n]), 3))
        for n in sorted(best)
    )


def renamed(stressed: Sequence[StressedWord], words: Sequence[Word]) -> tuple[StressedWord, ...]:
    """The same places under the words of another text; one that no word lies on is left out."""
    kept = []
    for one in stressed:
        shares = [min(one.end, word.end) - max(one.start, word.start) for word in words]
        best = int(np.argmax(shares)) if shares else -1
        if best >= 0 and shares[best] > 0.5 * (one.end - one.start):
            kept.append(replace(one, word=words[best].word))
    return tuple(kept)


def emphasis_scores(
    level_db: np.ndarray, f0: np.ndarray, words: Sequence[Word], units: Sequence[int]
) -> np.ndarray | None:
    """How far each word stands out [N], in spreads of the clip's words; NaN: it has no pitch. None: too few words.

    The three measures are loudest level, seconds a syllable (a character) and highest pitch, each as deviation from the
    clip's line (voices sink and soften towards the end) over the spread of its words. A word stands out as far as its
    two lesser deviations do on average: loud alone, or long alone, is no emphasis.

    Args:
        level_db, f0: a frame of 20 ms; NaN where unvoiced.
        words: with times in seconds of the clip, in order.
        units: syllables or characters of each word.
    """
    if len(words) < MIN_WORDS:
        return None
    measures_NK = np.full((len(words), 3), np.nan)
    for number, (word, count) in enumerate(zip(words, units, strict=True)):
        first = max(round(word.start / HOP_SECONDS), 0)
        frames = slice(first, max(round(word.end / HOP_SECONDS), first + 1))
        level, pitch = level_db[frames], f0[frames]
        pitch = pitch[np.isfinite(pitch)]
        if len(level) and len(pitch) >= 3 and count:
            length = np.log(max(word.end - word.start, 0.05) / (count + 0.5))
            measures_NK[number] = level.max(), length, np.quantile(12 * np.log2(pitch), 0.9)
    usable = np.isfinite(measures_NK).all(axis=1)
    if usable.sum() < MIN_WORDS:
        return None
    scores = np.full(len(words), np.nan)
    places = np.flatnonzero(usable).astype(float)
    z_NK = np.stack([_deviations(places, measures_NK[usable, k], _FLOORS[k]) for k in range(3)], axis=1)
    scores[usable] = np.sort(np.clip(z_NK, -3, 4), axis=1)[:, :2].mean(axis=1)
    return scores


def _deviations(places: np.ndarray, values: np.ndarray, floor: float) -> np.ndarray:
    """Deviations from the line through the values (Theil and Sen's), over their spread but at least over `floor`."""
    one, two = np.triu_indices(len(values), k=1)
    slope = np.median((values[two] - values[one]) / (places[two] - places[one]))
    rest = values - slope * places
    rest = rest - np.median(rest)
    spread = 1.4826 * np.median(np.abs(rest))
    deviations: np.ndarray = rest / max(spread, floor)
    return deviations
