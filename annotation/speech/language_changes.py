"""Where the language changes inside a clip: its stretches between pauses, and the pauses at which it is to be cut.

Segmentation cuts at pauses and where the speaker changes; a speaker, or two with voices alike, may change the language
after a pause that is shorter than what ends a clip. Only what is cut there is transcribed in the right language.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from annotation.speech.transcription import RATE
from annotation.speech.word_edges import FRAMES, HOP, sounding
from voxmill.core.audio import runs

# The recogniser tells the language of less than this too badly.
STRETCH_SECONDS = 1.25
PAUSE_SECONDS = 0.1
# What is longer than this is divided at shorter silences, too, as two turns without a pause between them have.
LONG_SECONDS = 4.0
SILENCE_SECONDS = 0.03
# A clip is searched for changes where the likeliest language of all of it is less likely than this in one of its
# stretches at a glance: of 70 clips with a change all, of 345 without half of those with more than one stretch.
SURE = 0.5
# A change has to explain the stretches this much better, in nats, than one language for all of them: of the same clips
# one keeps a change, and 39 changes are none; what they cut is put together once the languages are known.
CHANGE_COST = 2.0
# One stretch says no more than this, in nats, against a language.
DOUBT = 8.0


def stretches(audio: np.ndarray) -> list[tuple[int, int]]:
    """Sample ranges of a clip, float32 [samples] at 16 kHz, that begin and end in the middle of pauses.

    Divided at the longest pauses first; each holds at least `STRETCH_SECONDS`, and together they are the whole clip.
    """
    pauses = sorted(runs(~sounding(audio)), key=lambda one: (one[0] - one[1], one))
    shortest = round(STRETCH_SECONDS * RATE)
    bounds = [0, len(audio)]
    for first, last in pauses:
        middle, seconds = (first + last) // 2 * HOP, (last - first) / FRAMES
        place = bisect_right(bounds, middle)
        if place in (0, len(bounds)):
            continue
        low, high = bounds[place - 1], bounds[place]
        is_pause = seconds >= PAUSE_SECONDS or (seconds >= SILENCE_SECONDS and high - low > LONG_SECONDS * RATE)
        if is_pause and middle - low >= shortest and high - middle >= shortest:
            bounds.insert(place, middle)
    return list(zip(bounds, bounds[1:], strict=False))


def may_change(glanced_NL: np.ndarray, heard_L: np.ndarray) -> bool:
    """Whether a clip is to be searched: its stretches at a glance, and its own probabilities by sound."""
    return bool(glanced_NL[:, np.argmax(heard_L)].min() < SURE)


def changes(heard_NL: np.ndarray) -> list[int]:
    """Numbers of the stretches at which another language begins; N stretches in order, their probabilities by sound.

    The likeliest sequence of languages (Viterbi), in which each change costs `CHANGE_COST`.
    """
    scores_NL = np.maximum(np.log(np.maximum(heard_NL, 1e-6)), -DOUBT)
    best_L, came_from = scores_NL[0], []
    for scores_L in scores_NL[1:]:
        other = int(np.argmax(best_L))
        changed_L = best_L[other] - CHANGE_COST > best_L
        came_from.append(np.where(changed_L, other, np.arange(len(best_L))))
        best_L = np.where(changed_L, best_L[other] - CHANGE_COST, best_L) + scores_L
    language = int(np.argmax(best_L))
    found = []
    for number in range(len(came_from), 0, -1):
        before = int(came_from[number - 1][language])
        if before != language:
            found.append(number)
        language = before
    return found[::-1]


def parts(bounds: Sequence[tuple[int, int]], changed_at: Sequence[int]) -> list[tuple[int, int]]:
    """The ranges of a clip between its changes."""
    firsts = [0, *changed_at]
    return [
        (bounds[first][0], bounds[last - 1][1]) for first, last in zip(firsts, [*changed_at, len(bounds)], strict=True)
    ]
