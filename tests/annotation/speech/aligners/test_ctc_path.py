"""The path through CTC frames against all paths there are."""

import itertools

import numpy as np
import pytest

from annotation.speech.aligners.ctc_path import best_path

BLANK = 0


def collapsed(path: tuple[int, ...]) -> list[int]:
    """What frames read as: repeats are one, blanks nothing."""
    return [token for token, _ in itertools.groupby(path) if token != BLANK]


@pytest.mark.parametrize("tokens", [[1], [1, 2], [1, 1], [1, 2, 1], [2, 2, 1], [1, 2, 3, 2]])
@pytest.mark.parametrize("frames", [4, 6])
def test_the_path_is_the_likeliest_of_all(tokens: list[int], frames: int) -> None:
    probabilities = np.random.default_rng(frames).dirichlet([1] * 4, size=frames)
    scores = np.log(probabilities)
    ways = [way for way in itertools.product(range(4), repeat=frames) if collapsed(way) == tokens]
    path = best_path(scores, tokens, BLANK)
    assert path is not None
    labels = tuple(BLANK if number < 0 else tokens[number] for number in path)
    best = max(ways, key=lambda way: sum(scores[frame, token] for frame, token in enumerate(way)))
    assert labels == best
    # Each token has frames of its own, in order.
    assert [number for number, _ in itertools.groupby(path[path >= 0])] == list(range(len(tokens)))


@pytest.mark.parametrize(("tokens", "frames"), [([1, 2, 3], 2), ([1, 1], 2), ([2, 2, 2], 4)])
def test_tokens_that_do_not_fit_have_no_path(tokens: list[int], frames: int) -> None:
    scores = np.log(np.full((frames, 4), 0.25))
    assert best_path(scores, tokens, BLANK) is None
    assert best_path(np.log(np.full((frames + 1, 4), 0.25)), tokens, BLANK) is not None


def test_a_token_that_is_impossible_has_no_path() -> None:
    with np.errstate(divide="ignore"):
        scores = np.log(np.array([[0.5, 0.5, 0.0]] * 5))
    assert best_path(scores, [1, 2], BLANK) is None
