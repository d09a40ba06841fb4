"""Transcripts that lack their end: over the clips of a dataset, and over sentences beside random neighbours."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from annotation.speech.text_checks import normalise
from annotation.speech.whisper import WhisperRecogniser
from benchmarks.truth_parts.recordings import DatasetClip, TrueTurn, Truth, kept, overlap
from samples.turns import RATE, SAMPLES, Turn, sample_turns

MISSING_CHARACTERS = 3
"""Letters at the end of the known text that are in no way in the transcript, from which on it is cut short."""
EDGE_SECONDS = 0.15


def missing_end(spoken: str, text: str) -> int:
    """Letters of `spoken` after the last one that `text` has, by an alignment of both without spaces.

    A misheard end is no missing one: only what nothing stands for counts, behind letters that are right.
    """
    expected, actual = (normalise(one).replace(" ", "") for one in (spoken, text))
    steps = Levenshtein.opcodes(expected, actual)
    if not actual:
        return len(expected)
    if len(steps) < 2 or steps[-1].tag != "delete" or steps[-2].tag != "equal":
        return 0
    return steps[-1].src_end - steps[-1].src_start


def cut_short(clips: Sequence[DatasetClip], turns: Sequence[TrueTurn]) -> list[DatasetClip]:
    """Kept clips that lack the end of what is said in them. Turns of which a part lies in a clip are left out."""
    lacking = []
    for clip in kept(clips):
        inside = [turn for turn in turns if overlap(clip, turn) > 0]
        whole = all(overlap(clip, turn) > 0.9 * (turn.end - turn.start) for turn in inside)
        if inside and whole and missing_end(" ".join(turn.text for turn in inside), clip.text) >= MISSING_CHARACTERS:
            lacking.append(clip)
    return lacking


def cut_short_of(truth: Truth, clips: Mapping[str, Sequence[DatasetClip]]) -> list[tuple[str, DatasetClip]]:
    """The same over recordings, with their paths."""
    return [(path, clip) for path, turns in truth.items() for clip in cut_short(clips.get(path, []), turns)]


def beside_neighbours(
    recogniser: WhisperRecogniser, seed: int = 11, most: int = 6
) -> tuple[int, list[tuple[Turn, str]]]:
    """Decodes every sentence of the samples together with up to `most` random ones of its language.

    Returns:
        The number of sentences, and those that lack their end, with what was recognised.
    """
    rng = random.Random(seed)
    sentences = [turn for turn in sample_turns() if not turn.recording.endswith("music")]
    lacking = []
    for sentence in sentences:
        others = [other for other in sentences if other.language == sentence.language and other is not sentence]
        beside = [sentence, *rng.sample(others, min(rng.randint(1, most), len(others)))]
        rng.shuffle(beside)
        transcripts = recogniser.transcribe_batch([_with_edges(one) for one in beside], sentence.language)
        text = transcripts[next(at for at, one in enumerate(beside) if one is sentence)].text
        if missing_end(sentence.text, text) >= MISSING_CHARACTERS:
            lacking.append((sentence, text))
    return len(sentences), lacking


def _with_edges(sentence: Turn) -> np.ndarray:
    """The sentence with the edges that a clip has."""
    import soundfile

    start, end = (round(second * RATE) for second in (sentence.start - EDGE_SECONDS, sentence.end + EDGE_SECONDS))
    audio, _ = soundfile.read(
        SAMPLES / "recordings" / f"{sentence.recording}.flac", start=max(start, 0), stop=end, dtype="float32"
    )
    return np.asarray(audio)
