"""The language of every clip of a recording, by its own sound, with the recording's other clips as a prior.

The recogniser's probabilities of one clip alone err on short ones. The other clips of its recording, or the language
that its manifest gives, make one language likelier, but are no verdict: where two are near after that, both are
decoded, and the text that the recogniser is surer of decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxmill.data.languages import from_whisper, same_family

# What no other clip speaks is still this likely, of 1 for what all of them do.
UNHEARD = 0.01
# The same for what the manifest does not give.
UNGIVEN = 0.002
# Natural log of the odds below which two languages are near.
NEAR = 4.0
# Nats that a difference of the mean log probability of a text's tokens is worth.
TEXT_WEIGHT = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageChoice:
    """What a clip may be in: one language, or two that are near, the likelier one first.

    codes: places in the recogniser's languages. log_odds: of the second one against the first, by the sound and the
    prior; -inf where there is none.
    """

    codes: tuple[int, ...]
    log_odds: float = -np.inf


def choose(heard_NL: np.ndarray, seconds_N: Sequence[float], given: int | None = None) -> list[LanguageChoice]:
    """The languages that each of the N clips of a recording may be in.

    Args:
        heard_NL: probabilities of each clip by its sound alone.
        seconds_N: lengths of the clips.
        given: the language that the manifest names for the recording.
    """
    scores_NL = np.log(np.maximum(heard_NL, 1e-6)) + np.log(_priors(heard_NL, seconds_N, given))
    choices = []
    for scores_L in scores_NL:
        first, second = np.argsort(-scores_L, kind="stable")[:2] if len(scores_L) > 1 else (0, 0)
        log_odds = float(scores_L[second] - scores_L[first])
        near = first != second and log_odds > -NEAR
        choices.append(
            LanguageChoice(codes=(int(first), int(second)), log_odds=log_odds)
            if near
            else LanguageChoice(codes=(int(first),))
        )
    return choices


def _priors(heard_NL: np.ndarray, seconds_N: Sequence[float], given: int | None) -> np.ndarray:
    """How likely each language is for each clip before it is heard, [N, L], 0..1 (not shares of one)."""
    if given is not None:
        priors_NL = np.full_like(heard_NL, UNGIVEN)
        priors_NL[:, given] = 1.0
        return priors_NL
    weights_N = np.asarray(seconds_N)[:, None]
    others_NL = (heard_NL * weights_N).sum(axis=0) - heard_NL * weights_N
    rest_N = weights_N.sum() - weights_N
    # A recording of one clip says nothing.
    shares_NL: np.ndarray = np.divide(others_NL, rest_N, out=np.ones_like(others_NL), where=rest_N > 0)
    floored_NL: np.ndarray = np.maximum(shares_NL, UNHEARD)
    return floored_NL


def is_second(choice: LanguageChoice, log_probabilities: Sequence[float]) -> bool:
    """Whether the second of two near languages is the likelier one by sound, prior and both texts.

    Args:
        log_probabilities: mean of each text's tokens.
    """
    first, second = log_probabilities
    return choice.log_odds + TEXT_WEIGHT * (second - first) > 0


def of_family(heard_L: np.ndarray, languages: Sequence[str], place: int) -> tuple[float, int, float]:
    """Probability of a language by the sound alone, and the place and probability of the next one.

    Languages that text does not tell apart count as one.
    """
    own_L = np.array([same_family(from_whisper(languages[place]), from_whisper(code)) for code in languages])
    others_L = np.where(own_L, -1.0, heard_L)
    second = int(np.argmax(others_L))
    return float(heard_L[own_L].sum()), second, max(float(others_L[second]), 0.0)
