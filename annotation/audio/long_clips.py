"""Long clips: neighbouring clips of one speaker joined over their pauses, with one text.

Segmentation cuts at pauses what the recogniser takes at once. Each of these clips is transcribed by itself; where
several in a row are in one language and their texts can be relied on, some are joined, in lengths drawn from
`segmentation.lengths`. What is not to be relied on stays a clip of its own between them. No clip is a part of two.
"""

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from annotation.audio.segmentation import SegmentationConfig
from annotation.speech.completeness import EARLY_SECONDS
from annotation.speech.hallucinations import is_hallucination
from annotation.speech.text_checks import normalise, text_language, tokens
from annotation.speech.transcription import TranscriptionConfig
from voxmill.core.audio import runs
from voxmill.data.records import Candidate, ClipId, Seconds, TranscriptChecks, Word
from voxmill.data.scripts import joined

# Whisper's own sign that nobody speaks.
MAX_NO_SPEECH = 0.6
MAX_REPEATED = 0.3
MIN_LANGUAGE_CONFIDENCE = 0.75
# Of the words of two decodings: below it one of them lacks or invents something.
MIN_AGREEMENT = 0.7
# So far below the mean power of the speech on both sides is a pause; breath is 20 dB and more.
QUIET_DB = 10.0
MIN_SNR_DB = 10.0


def is_sure(candidate: Candidate, config: TranscriptionConfig) -> bool:
    """Whether the text of a transcribed clip can be relied on enough to be a part of a longer one.

    What its recogniser does not tell counts neither way.
    """
    checks = candidate.transcript
    if checks is None or not candidate.words or candidate.cut == "forced" or is_hallucination(candidate.text):
        return False
    return (
        (checks.mean_log_probability is None or checks.mean_log_probability >= config.redecode_below)
        and checks.compression_ratio <= config.redecode_compression
        and checks.repeated_ngram <= MAX_REPEATED
        and (checks.no_speech_probability is None or checks.no_speech_probability <= MAX_NO_SPEECH)
        and checks.language_confidence >= MIN_LANGUAGE_CONFIDENCE
        and checks.seconds_after_words <= EARLY_SECONDS
        and (checks.agreement is None or checks.agreement >= MIN_AGREEMENT)
    )


def follows(before: Candidate, after: Candidate, rate: int, config: SegmentationConfig) -> bool:
    """Whether a clip is what its speaker says next in the same language, after a pause that a clip may hold."""
    pause = (after.start_sample - before.end_sample) / rate
    return (
        before.cut in ("pause", "language")
        and before.turn == after.turn
        and before.language == after.language
        and 0 <= pause <= config.long_pause
    )


def is_quiet(pause: np.ndarray, speech: np.ndarray, rate: int) -> bool:
    """Whether what lies between two clips is a pause, and no noise or music, by its power beside that of the speech."""
    hop = rate // 20
    frames = np.square(pause[: len(pause) // hop * hop]).reshape(-1, hop).mean(axis=1)
    return float(frames.max(initial=0.0)) <= float(np.square(speech).mean()) * 10 ** (-QUIET_DB / 10)


def in_a_row(joins: Sequence[bool]) -> list[range]:
    """Numbers of clips in a row that may be one; `joins[n]`: whether clip n and the next one may."""
    return [range(first, last + 1) for first, last in runs(np.array(joins, dtype=bool))]


def draw(
    spans: Sequence[tuple[Seconds, Seconds]], joinable: Sequence[range], config: SegmentationConfig, seed: str
) -> list[range]:
    """Which neighbours become one clip each, in order.

    Of each length, the longest first, as many are drawn as make up its share of the seconds of all runs that are long
    enough for it; where that is less than one clip, one is drawn as often as makes the share on average. Within a
    length shorter ones are likelier (uniform in the logarithm). A clip lies at one end of what is left of a run.

    Args:
        spans: start and end of each clip.
        joinable: numbers of clips in a row that may be one, none twice.
        seed: the same gives the same.
    """
    rng = random.Random(seed)
    drawn: list[range] = []
    free = [*joinable]
    lengths = [seconds_of(spans, run) for run in joinable]
    bounds = [config.max_seconds, *sorted(config.lengths)]
    for low, high in reversed(list(pairwise(bounds))):
        budget = config.lengths[high] * sum(length for length in lengths if length > low)
        while budget > 0:
            wanted = low * math.exp(rng.random() * math.log(high / low))
            if rng.random() * wanted >= budget:
                break
            places = [(place, _end(spans, run, low, high, wanted)) for place, run in enumerate(free)]
            rooms = [(place, parts) for place, parts in places if parts]
            if not rooms:
                break
            place, parts = rooms[rng.randrange(len(rooms))]
            own, rest = parts[rng.randrange(len(parts))]
            drawn.append(own)
            budget -= seconds_of(spans, own)
            free[place : place + 1] = [rest] if len(rest) > 1 else []
    return sorted(drawn, key=lambda run: run.start)


def _end(
    spans: Sequence[tuple[Seconds, Seconds]], run: range, low: Seconds, high: Seconds, wanted: Seconds
) -> list[tuple[range, range]]:
    """The first and the last clips of a run that come nearest to a length within bounds, and the rest of the run."""
    first, last = run.start, run.stop
    heads = [(range(first, cut), range(cut, last)) for cut in range(first + 2, last + 1)]
    tails = [(range(cut, last), range(first, cut)) for cut in range(first, last - 1)]
    nearest = []
    for side in (heads, tails):
        lengths = [(abs(seconds_of(spans, own) - wanted), n) for n, (own, _) in enumerate(side)]
        fitting = [one for one in lengths if low < seconds_of(spans, side[one[1]][0]) <= high]
        if fitting:
            nearest.append(side[min(fitting)[1]])
    return nearest


def seconds_of(spans: Sequence[tuple[Seconds, Seconds]], run: range) -> Seconds:
    return spans[run[-1]][1] - spans[run[0]][0]


def join(pieces: Sequence[Candidate], rate: int, clip_id: ClipId) -> Candidate:
    """Clips in a row as one; `rate` is that of their samples."""
    first, last = pieces[0], pieces[-1]
    language = first.language
    text, words = joined_words(pieces, rate)
    mean = _Means(pieces)
    return Candidate(
        clip_id=clip_id,
        start_sample=first.start_sample,
        end_sample=last.end_sample,
        turn=first.turn,
        cut=last.cut,
        text=text,
        words=words,
        language=language,
        language_probability=mean(lambda piece: piece.language_probability),
        transcript=_checks(pieces, text, (last.end_sample - first.start_sample) / rate, mean),
    )


def joined_words(pieces: Sequence[Candidate], rate: int) -> tuple[str, tuple[Word, ...]]:
    """Text and words of clips in a row, in seconds of the first one."""
    words = []
    for piece in pieces:
        offset = (piece.start_sample - pieces[0].start_sample) / rate
        words += [
            dataclasses.replace(word, start=round(word.start + offset, 3), end=round(word.end + offset, 3))
            for word in piece.words
        ]
    return joined(piece.text for piece in pieces), tuple(words)


def num_words(clip: Candidate) -> int:
    """Words of a clip, or characters where the language has those instead; 1 at least, as a weight."""
    return max(len(tokens(clip.text, clip.language)), 1)


class _Means:
    """Means over pieces by their words."""

    def __init__(self, pieces: Sequence[Candidate]):
        self.pieces = pieces
        self.weights = [num_words(piece) for piece in pieces]

    def __call__(self, measure: Callable[[Candidate], float]) -> float:
        total = sum(weight * measure(piece) for piece, weight in zip(self.pieces, self.weights, strict=True))
        return total / sum(self.weights)

    def of_all(self, measure: Callable[[Candidate], float | None]) -> float | None:
        """The mean, None where a piece has no such measure."""
        values = [measure(piece) for piece in self.pieces]
        known = [value * weight for value, weight in zip(values, self.weights, strict=True) if value is not None]
        return sum(known) / sum(self.weights) if len(known) == len(values) else None

    def most(self, name: Callable[[Candidate], str]) -> str:
        """The name that stands for the most words; the first one of several."""
        words: dict[str, int] = {}
        for piece, weight in zip(self.pieces, self.weights, strict=True):
            words[name(piece)] = words.get(name(piece), 0) + weight
        return max(words, key=lambda one: words[one])


def _of(piece: Candidate) -> TranscriptChecks:
    assert piece.transcript is not None
    return piece.transcript


def _checks(pieces: Sequence[Candidate], text: str, seconds: Seconds, mean: _Means) -> TranscriptChecks:
    """Of a long clip: a text's own measures over all of it, but those that grow with its length, and others' means."""
    text_code, text_probability = text_language(text)
    reasons = {reason for piece in pieces for reason in _of(piece).redecoded_for.split("+") if reason}
    twice = any(_of(piece).agreement is not None for piece in pieces)
    return TranscriptChecks(
        compression_ratio=mean(lambda piece: _of(piece).compression_ratio),
        repeated_ngram=mean(lambda piece: _of(piece).repeated_ngram),
        characters_per_second=len(normalise(text).replace(" ", "")) / seconds,
        text_language=text_code,
        text_language_probability=text_probability,
        mean_log_probability=mean.of_all(lambda piece: _of(piece).mean_log_probability),
        no_speech_probability=mean.of_all(lambda piece: _of(piece).no_speech_probability),
        redecoded=any(_of(piece).redecoded for piece in pieces),
        aligner=mean.most(lambda piece: _of(piece).aligner),
        recogniser=mean.most(lambda piece: _of(piece).recogniser),
        second_language=mean.most(lambda piece: _of(piece).second_language),
        second_language_probability=mean(lambda piece: _of(piece).second_language_probability),
        language_confidence=mean(lambda piece: _of(piece).language_confidence),
        redecoded_for="+".join(sorted(reasons)),
        agreement=mean(lambda piece: 1.0 if (own := _of(piece).agreement) is None else own) if twice else None,
        seconds_after_words=_of(pieces[-1]).seconds_after_words,
        words_between=sum(_of(piece).words_between for piece in pieces),
    )
