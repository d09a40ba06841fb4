"""The word error rate that a transcript probably has, from what the recogniser and the checks tell of it.

A regression over a few measures, each limited to the range that it was fitted on and pushing only one way, and a curve
that turns its score into a rate. Before the curve a score moves towards those of the recording's other clips, where
these are worse: where the recogniser fails all around a clip, since it does not know the language, say, fluent words
are luck or invented. What fits the numbers is `wer_fitting`; those of the embedded recogniser lie in `wer_fits/`, as
JSON that also says on what they were fitted and how true they were on voices that the fit had not seen.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotation.speech.text_checks import normalise, tokens
from voxmill.core.errors import UserError
from voxmill.data.languages import base_language, same_family
from voxmill.data.records import Candidate, ShardMetadata, from_json_text
from voxmill.data.scripts import letters_a_character

FORMAT = 3
FITS = Path(__file__).parent / "wer_fits"

NEAR_LANGUAGES = 0.25
"""What a clip counts as decoded again that was so in other languages alone; the one it is in was in no doubt."""
BYTES_A_TOKEN = 4
"""A token's probability is not a word's: a Greek word takes four times the tokens of an English one."""

FEW_SECONDS = 24.0
"""With so many seconds of other clips a score moves half of the way that it moves with very many."""
LONGEST_SECONDS = 5.0
"""A longer clip counts as one of this length among the others."""

ORDINARY_COMPRESSION, ORDINARY_REPETITION = 1.8, 0.15
"""What true text reaches: the longer it is, the better it compresses, and three words may well be said twice."""

DIRECTIONS: Mapping[str, int] = {
    "log_probability": -1,
    "word_log_probability": -1,
    "words_right": -1,
    "word_probability": -1,
    "low_word_probability": -1,
    "unsure_words": 1,
    "language": -1,
    "second_language": 1,
    "text_language": -1,
    "slow": 1,
    "fast": 1,
    "no_speech": 1,
    "compression": 1,
    "repeated": 1,
    "redecoded": 1,
    "agreement": -1,
    "sound_after_words": 1,
    "brevity": 1,
    "dnsmos": -1,
    "snr": -1,
}
"""What a fit may look at, and whether more of it means more errors (1) or fewer (-1)."""


def is_measured(clip: Candidate | ShardMetadata) -> bool:
    """Whether a transcribed clip's recogniser told all that a fit may look at."""
    checks = clip.transcript
    known = checks is not None and None not in (checks.mean_log_probability, checks.no_speech_probability)
    return known and all(word.probability is not None for word in clip.words)


def measures(clip: Candidate | ShardMetadata, seconds: float) -> dict[str, float]:
    """The measures of a transcribed clip by the names of `DIRECTIONS`; it has all of them (`is_measured`)."""
    transcript, quality = clip.transcript, clip.quality
    assert transcript is not None and quality is not None
    assert transcript.mean_log_probability is not None and transcript.no_speech_probability is not None
    language = base_language(clip.language)
    probabilities = np.array([word.probability for word in clip.words] or [0.0], dtype=float)
    pieces = np.array([_pieces(word.word) for word in clip.words] or [1.0])
    units = tokens(clip.text, language)
    same = same_family(transcript.text_language, language)
    letters = max(transcript.characters_per_second * letters_a_character(normalise(clip.text)), 0.1)
    return {
        "log_probability": transcript.mean_log_probability,
        "word_log_probability": transcript.mean_log_probability * sum(map(_pieces, units)) / max(len(units), 1),
        "words_right": float((np.maximum(probabilities, 1e-3) ** np.maximum(pieces, 1.0)).mean()),
        "word_probability": float(probabilities.mean()),
        "low_word_probability": float(np.quantile(probabilities, 0.1)),
        "unsure_words": float((probabilities < 0.5).mean()),
        "language": math.log(max(clip.language_probability, 1e-3)),
        "second_language": transcript.second_language_probability,
        "text_language": transcript.text_language_probability * (1 if same else -1),
        "slow": max(math.log(10 / letters), 0.0),
        "fast": max(math.log(letters / 18), 0.0),
        "no_speech": transcript.no_speech_probability,
        "compression": max(transcript.compression_ratio - ORDINARY_COMPRESSION, 0.0),
        "repeated": max(transcript.repeated_ngram - ORDINARY_REPETITION, 0.0),
        "redecoded": 1.0 if transcript.agreement is not None else NEAR_LANGUAGES * transcript.redecoded,
        "agreement": 1.0 if transcript.agreement is None else transcript.agreement,
        "sound_after_words": transcript.seconds_after_words,
        "brevity": 1 / math.sqrt(max(letters * seconds, 1.0)),
        "dnsmos": quality.dnsmos_ovr,
        "snr": quality.snr_db,
    }


def toward_others(scores_N: np.ndarray, seconds_N: np.ndarray, share: float) -> np.ndarray:
    """Scores of all clips of one recording, each moved towards the mean of the others where that is higher (worse).

    Towards a lower one it stays: what is wrong among clips that are right is wrong all the same.

    Args:
        seconds_N: their lengths. share: of the way, 0 to 1, that a score moves where there are very many others.
    """
    weights_N = np.minimum(seconds_N, LONGEST_SECONDS)
    others_N = weights_N.sum() - weights_N
    sums_N = (weights_N * scores_N).sum() - weights_N * scores_N
    means_N = np.divide(sums_N, others_N, out=scores_N.astype(float), where=others_N > 0)
    return np.asarray(scores_N + share * others_N / (others_N + FEW_SECONDS) * np.maximum(means_N - scores_N, 0.0))


def _pieces(word: str) -> float:
    """About how many of the recogniser's tokens a word takes: they are bytes, put together as English needs it most."""
    return len(word.strip().encode()) / BYTES_A_TOKEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One measure in the score: `weight` times its value, which is kept within `low` and `high`."""

    measure: str
    low: float
    high: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fifth:
    """A fifth of the clips by predicted error rate: how many, and both rates over their words."""

    clips: int
    predicted: float
    true: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceCount:
    """Clips of one voice and language that a fit was made or tried on."""

    voice: str
    language: str
    clips: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WerFit:
    """Numbers of the regression and where they come from.

    recogniser: `transcription.model` or, of an embedded one, its asset; sha256: of the latter's files, else "".
    others: share of the way to the other clips of a recording, as `toward_others` has it.
    curve: (score, error rate), both rising; flat beyond its ends. fitted_on, tried_on: voices of the fit and voices
    that it has not seen, of which `fifths` are. left_out: clips in whose text there are digits.
    """

    format: int
    recogniser: str
    sha256: str
    voxmill: str
    date: str
    recordings: str
    bias: float
    terms: tuple[Term, ...]
    others: float
    curve: tuple[tuple[float, float], ...]
    fitted_on: tuple[VoiceCount, ...]
    tried_on: tuple[VoiceCount, ...]
    fifths: tuple[Fifth, ...]
    left_out: int

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}, not {FORMAT}")
        for term in self.terms:
            if term.measure not in DIRECTIONS:
                raise ValueError(f"no measure {term.measure!r}")
            if term.weight * DIRECTIONS[term.measure] < 0 or not term.low <= term.high:
                raise ValueError(f"{term.measure}: its weight has the wrong sign, or its range is turned around")
        if not 0 <= self.others <= 1:
            raise ValueError(f"others has to be a share, not {self.others}")
        scores, rates = zip(*self.curve, strict=True) if self.curve else ((), ())
        rising = all(a < b for a, b in zip(scores, scores[1:], strict=False)) and list(rates) == sorted(rates)
        numbers = [self.bias, *scores, *rates, *(n for term in self.terms for n in (term.low, term.high, term.weight))]
        if not scores or not rising or min(rates) < 0 or not all(map(math.isfinite, numbers)):
            raise ValueError("the curve has to rise from 0 or more, and every number has to be finite")

    def score(self, values: Mapping[str, float]) -> float:
        """Of a clip's `measures`."""
        terms = self.terms
        return self.bias + sum(term.weight * min(max(values[term.measure], term.low), term.high) for term in terms)

    def predict(self, clips: Sequence[tuple[Candidate | ShardMetadata, float]]) -> list[float]:
        """Predicted word error rates, 0 and up, of all transcribed clips of one recording: (clip, seconds)."""
        scores_N = np.array([self.score(measures(clip, seconds)) for clip, seconds in clips], float)
        moved_N = toward_others(scores_N, np.array([seconds for _, seconds in clips], float), self.others)
        scores, rates = zip(*self.curve, strict=True)
        return [round(float(rate), 4) for rate in np.interp(moved_N, scores, rates)]


def read_fit(path: Path) -> WerFit:
    """The fit in a JSON file.

    Raises:
        UserError: it is not there, or no fit of this version.
    """
    try:
        return from_json_text(WerFit, path.read_bytes())
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: no fit of `voxmill fit-trust` ({reason}); make it anew") from None


def shipped_fit(recogniser: str, sha256: str) -> WerFit | None:
    """The fit that the project has for a recogniser, of exactly these weights; None where it has none."""
    path = FITS / f"{recogniser}.json"
    fit = read_fit(path) if re.fullmatch(r"[\w.-]+", recogniser) and path.exists() else None
    return fit if fit is not None and fit.sha256 == sha256 else None
