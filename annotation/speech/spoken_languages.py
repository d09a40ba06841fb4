"""The language of every clip of a recording, by its own sound, with the recording's other clips as a prior.

The recogniser's probabilities of one clip alone err on short ones. The other clips of its recording, or the language
that its manifest gives, make one language likelier, but are no verdict: where several are near after that, all are
decoded, and the text that the recogniser is surer of and that reads as its language decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxmill.data.languages import from_whisper, same_family

# What no other clip speaks is still this likely, of 1 for what all of them do.
UNHEARD = 0.03
# The same for what the manifest does not give.
UNGIVEN = 0.01
# The recogniser is too sure of what it hears, and a recording's other clips tell less than they seem to. These four
# were chosen on 650 clips of 2 s and more, of recordings in one to three of five languages, together with
# `select.min_language_confidence`: one clip in a wrong language is kept, 7 in the right one are not (`docs/log.md`).
SOUND_WEIGHT = 0.3
PRIOR_WEIGHT = 0.5
# Nats that a difference of the mean log probability of a text's tokens is worth in a clip of `USUAL_SECONDS`; it says
# the more the more tokens there are, as means do with the root of their number.
TEXT_WEIGHT = 12.0
USUAL_SECONDS = 4.0
# The same for a text that surely reads as the language that it was recognised in: in another one the recogniser may
# write the words that are said, too.
AGREEMENT_WEIGHT = 1.0
# Nats below which languages are near by sound and prior: of the same clips 6 are in one that is not.
NEAR = 2.0
# So many languages are tried at most.
MOST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageChoice:
    """What a clip may be in: one language, or several that are near, the likeliest first.

    places: in the recogniser's languages. scores: logarithms of how likely each is by the sound and the prior.
    seconds: length of the clip.
    """

    places: tuple[int, ...]
    scores: tuple[float, ...]
    seconds: float


def choose(heard_NL: np.ndarray, seconds_N: Sequence[float], given: int | None = None) -> list[LanguageChoice]:
    """The languages that each of the N clips of a recording may be in.

    Args:
        heard_NL: probabilities of each clip by its sound alone.
        seconds_N: lengths of the clips.
        given: the language that the manifest names for the recording.
    """
    priors_NL = _priors(heard_NL, seconds_N, given)
    scores_NL = SOUND_WEIGHT * np.log(np.maximum(heard_NL, 1e-6)) + PRIOR_WEIGHT * np.log(priors_NL)
    choices = []
    for scores_L, seconds in zip(scores_NL, seconds_N, strict=True):
        places = np.argsort(-scores_L, kind="stable")[:MOST]
        near = [int(place) for place in places if scores_L[place] > scores_L[places[0]] - NEAR]
        scores = tuple(float(scores_L[place]) for place in near)
        choices.append(LanguageChoice(places=tuple(near), scores=scores, seconds=seconds))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageText:
    """What a clip was recognised as in one language: mean log probability of the tokens, and how far the words agree.

    agreement: probability that the text is in that language, negative where it reads as another one, -1..1.
    """

    log_probability: float
    agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageVerdict:
    """Which of the languages that are near a clip is in, by number, and how sure that is, 0..1."""

    number: int
    confidence: float


def decide(choice: LanguageChoice, texts: Sequence[LanguageText]) -> LanguageVerdict:
    """The language of a clip by sound, prior and, where several are near, the texts in all of them."""
    scores_K = np.array(choice.scores)
    text_weight = TEXT_WEIGHT * (choice.seconds / USUAL_SECONDS) ** 0.5
    scores_K += [text_weight * text.log_probability + AGREEMENT_WEIGHT * text.agreement for text in texts]
    shares_K = np.exp(scores_K - scores_K.max())
    return LanguageVerdict(number=int(np.argmax(shares_K)), confidence=float(shares_K.max() / shares_K.sum()))


def of_family(heard_L: np.ndarray, languages: Sequence[str], place: int) -> tuple[float, int, float]:
    """Probability of a language by the sound alone, and the place and probability of the next one.

    Languages that text does not tell apart count as one.
    """
    own_L = np.array([same_family(from_whisper(languages[place]), from_whisper(code)) for code in languages])
    others_L = np.where(own_L, -1.0, heard_L)
    second = int(np.argmax(others_L))
    return float(heard_L[own_L].sum()), second, max(float(others_L[second]), 0.0)
