"""Where the language changes inside a clip: its stretches between pauses, and the pauses at which it is to be cut.

Segmentation cuts at pauses and where the speaker changes; a speaker, or two with voices alike, may change the language
after a pause that is shorter than what ends a clip. Only what is cut there is transcribed in the right language.
"""

from collections.abc import Sequence

import numpy as np

from annotation.speech.transcription import RATE
from annotation.speech.word_edges import FRAMES, sounding

# The recogniser tells the language of less than this too badly.
STRETCH_SECONDS = 1.5
PAUSE_SECONDS = 0.1
# A change has to explain the stretches this much better, in nats, than one language for all of them.
CHANGE_COST = 4.0
# One stretch says no more than this, in nats, against a language.
DOUBT = 5.0


def stretches(audio: np.ndarray) -> list[tuple[int, int]]:
    """Sample ranges of a clip, float32 [samples] at 16 kHz, that begin and end in the middle of pauses.

    Each holds at least `STRETCH_SECONDS`; together they are the whole clip.
    """
    hop, pause = RATE // FRAMES, round(PAUSE_SECONDS * FRAMES)
    silent = ~sounding(audio)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], silent.astype(np.int8), [0]))))
    middles = [
        (first + last) // 2 * hop for first, last in zip(edges[::2], edges[1::2], strict=True) if last - first >= pause
    ]
    shortest = round(STRETCH_SECONDS * RATE)
    bounds = [0]
    for middle in middles:
        if middle - bounds[-1] >= shortest and len(audio) - middle >= shortest:
            bounds.append(int(middle))
    return list(zip(bounds, [*bounds[1:], len(audio)], strict=True))


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
