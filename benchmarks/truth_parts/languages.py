"""Recordings made from the samples in which the language changes, and whether clips have the one that is spoken."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from annotation.speech.text_checks import error_rate, text_language
from benchmarks.truth_parts.recordings import DatasetClip, TrueTurn, Truth, kept, overlap, write_truth
from samples.turns import RATE, Turn, sample_turns
from voxmill.data.languages import base_language, same_family

TURN_SECONDS = (2.0, 20.0)
PAUSES = (0.25, 1.2)
"""Seconds of pause between sentences, from and to; a turn of another language may follow after as little."""
NOISE = 10 ** (-75 / 20)
# Edges of known turns and of clips are a few frames apart.
TOLERANCE = 0.3


def make_mixed(folder: Path, recordings: int = 12, seed: int = 7, seconds: float = 60.0) -> Truth:
    """Writes recordings of two and three languages below `folder`, and their `truth.jsonl`.

    A turn is one sentence or several of one voice and language, 2 to 20 s; a voice may change its language.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sentences: dict[str, list[Turn]] = {}
    for sentence in sample_turns():
        if TURN_SECONDS[0] <= len(sentence.audio) / RATE <= TURN_SECONDS[1]:
            sentences.setdefault(sentence.language, []).append(sentence)
    truth: Truth = {}
    for number in range(recordings):
        languages = rng.sample(sorted(sentences), 2 + number % 2)
        path = f"mixed-{number:02d}-{'-'.join(languages)}.flac"
        audio, truth[path] = _mixed({language: sentences[language] for language in languages}, seconds, rng)
        soundfile.write(folder / path, audio, RATE)
    write_truth(folder / "truth.jsonl", truth)
    return truth


def _mixed(
    sentences: Mapping[str, Sequence[Turn]], seconds: float, rng: random.Random
) -> tuple[np.ndarray, list[TrueTurn]]:
    """Samples, and the turns in them, one a sentence."""
    language, parts, turns, position = "", [], [], 0.0

    def pause() -> float:
        length = int(rng.uniform(*PAUSES) * RATE)
        noise = np.random.default_rng(rng.randrange(2**32)).normal(0.0, NOISE, length)
        parts.append(noise.astype(np.float32))
        return length / RATE

    position += pause()
    while position < seconds:
        language = rng.choice([other for other in sorted(sentences) if other != language])
        left = rng.uniform(*TURN_SECONDS)
        for sentence in rng.sample(list(sentences[language]), len(sentences[language])):
            length = len(sentence.audio) / RATE
            if length > left:
                continue
            left -= length
            parts.append(sentence.audio)
            turns.append(TrueTurn(start=position, end=position + length, text=sentence.text, language=language))
            position += length
            position += pause()
    return np.concatenate(parts), turns


@dataclass(kw_only=True)
class LanguageCounts:
    """Kept clips, those in a language that is not spoken in all of them, true turns, and those of which less is kept
    than is dropped."""

    kept: int = 0
    wrong: int = 0
    turns: int = 0
    dropped: int = 0

    def __iadd__(self, other: "LanguageCounts") -> "LanguageCounts":
        self.kept += other.kept
        self.wrong += other.wrong
        self.turns += other.turns
        self.dropped += other.dropped
        return self

    @property
    def share_dropped(self) -> float:
        return self.dropped / max(self.turns, 1)


def is_in_another_language(clip: DatasetClip, turns: Sequence[TrueTurn]) -> bool:
    """Whether some of a clip's speech is in another language than the clip is said to be, or its text is none of it."""
    inside = [turn for turn in turns if overlap(clip, turn) > TOLERANCE]
    if any(base_language(turn.language) != base_language(clip.language) for turn in inside):
        return True
    # A translation has other words, and reads as another language.
    spoken = " ".join(turn.text for turn in inside)
    wer = error_rate(spoken, clip.text, clip.language)
    return wer is not None and wer > 0.8 and not same_family(text_language(clip.text)[0], clip.language)


def count_languages(turns: Sequence[TrueTurn], clips: Sequence[DatasetClip], shortest: float = 2.0) -> LanguageCounts:
    """Counts of one recording; turns shorter than `shortest` seconds are expected in no clip."""
    held = kept(clips)
    due = [turn for turn in turns if turn.end - turn.start >= shortest]
    dropped = [turn for turn in due if sum(overlap(clip, turn) for clip in held) < (turn.end - turn.start) / 2]
    wrong = sum(is_in_another_language(clip, turns) for clip in held)
    return LanguageCounts(kept=len(held), wrong=wrong, turns=len(due), dropped=len(dropped))


HEADINGS = ["recording", "kept clips", "in another language", "true turns", "dropped"]


def languages_table(truth: Truth, clips: Mapping[str, Sequence[DatasetClip]]) -> tuple[list[list[str]], LanguageCounts]:
    """A row a recording and one for all."""
    rows, total = [], LanguageCounts()
    for path, turns in truth.items():
        counts = count_languages(turns, clips.get(path, []))
        rows.append(_row(path, counts))
        total += counts
    return [*rows, _row("all", total)], total


def _row(name: str, counts: LanguageCounts) -> list[str]:
    return [name, str(counts.kept), str(counts.wrong), str(counts.turns), str(counts.dropped)]
