"""The likeliest way of tokens through the frames of a CTC model: Viterbi, as in torchaudio's `forced_align`.

torchaudio's own needs its compiled extension, which a torch for CPUs has not (docs/log.md).
"""

from collections.abc import Sequence

import numpy as np

_STAY, _STEP, _SKIP = 0, 1, 2


def best_path(log_probabilities_TV: np.ndarray, tokens: Sequence[int], blank: int) -> np.ndarray | None:
    """Number of the token that each frame is, int64 [T], -1 where it is a blank; None where the tokens do not fit.

    A blank stands between two tokens that are the same, and may stand between any others.

    Args:
        log_probabilities_TV: of each token of the vocabulary in each frame.
        tokens: one at least, none of them the blank.
    """
    frames, labels = len(log_probabilities_TV), np.full(2 * len(tokens) + 1, blank)
    labels[1::2] = tokens
    repeats = int((labels[3::2] == labels[1:-2:2]).sum())
    if frames < len(tokens) + repeats:
        return None
    may_skip = np.zeros(len(labels), dtype=bool)
    may_skip[3::2] = labels[3::2] != labels[1:-2:2]
    best = np.full(len(labels), -np.inf)
    best[:2] = log_probabilities_TV[0, labels[:2]]
    moves = np.zeros((frames, len(labels)), dtype=np.int8)
    step, skip = np.full(len(labels), -np.inf), np.full(len(labels), -np.inf)
    for frame in range(1, frames):
        step[1:] = best[:-1]
        skip[2:] = np.where(may_skip[2:], best[:-2], -np.inf)
        # Of equal ways the one that stays.
        moves[frame][step > best] = _STEP
        best = np.maximum(best, step)
        moves[frame][skip > best] = _SKIP
        best = np.maximum(best, skip) + log_probabilities_TV[frame, labels]
    state = len(labels) - 1 if best[-1] > best[-2] else len(labels) - 2
    if not np.isfinite(best[state]):
        return None
    path = np.zeros(frames, dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state // 2 if state % 2 else -1
        state -= int(moves[frame, state])
    return path
