"""Transcribed clips with the word times of the configured aligner."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from annotation.speech.aligners.aligner import BY_SHARES, Aligner, SpokenClip, shares
from annotation.speech.aligners.config import AlignmentConfig
from voxmill.data.records import Candidate, Word


def with_word_times(
    clips: Sequence[np.ndarray], candidates: Sequence[Candidate], config: AlignmentConfig, aligner: Aligner | None
) -> list[Candidate]:
    """The candidates with their words placed; those of which the aligner can place no word as they are.

    Args:
        clips: float32 [samples] at 16 kHz of each candidate.
        aligner: as `load_aligner` gives it.
    """
    if config.backend == "none":
        return [_with_shares(candidate) for candidate in candidates]
    if aligner is None:
        return [*candidates]
    spoken = [
        SpokenClip(audio, candidate.words, candidate.language)
        for audio, candidate in zip(clips, candidates, strict=True)
    ]
    return [
        candidate if aligned is None else with_words(candidate, aligned.words, aligner.name, between=aligned.between)
        for candidate, aligned in zip(candidates, aligner.align(spoken), strict=True)
    ]


def _with_shares(candidate: Candidate) -> Candidate:
    """The words share the time from the first to the last one."""
    words = candidate.words
    return with_words(candidate, shares(words, words[0].start, words[-1].end) if words else (), BY_SHARES)


def with_words(candidate: Candidate, words: Sequence[Word], aligner: str, *, between: int = 0) -> Candidate:
    """A transcribed candidate with its words at other times, and who placed them.

    Args:
        between: words that could only be put between their neighbours.
    """
    checks = candidate.transcript
    assert checks is not None
    checks = dataclasses.replace(checks, aligner=aligner, words_between=between)
    return dataclasses.replace(candidate, words=tuple(words), transcript=checks)
