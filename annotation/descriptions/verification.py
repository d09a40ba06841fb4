"""Is a description true of its clip? Its claims, each checked against what was measured or classified.

Report section 3.6: descriptions are 'verified with some dedicated expert classifiers in terms of gender, age and
emotion'; pitch, intonation, rate, energy, pauses and texture are checked against measurements of the clip, whoever
wrote the text. What models name (`CLASSIFIED`) is judged by sources that did not give the writer its facts: gender by
the pitch, by a second classifier, or, for a corpus's own caption, by ours. The writer's own source shows that a text is
faithful, not that it is right: a claim against it fails, a claim that only it supports is `unjudged`. Sources that
contradict each other decide nothing (`abstain`).

A description fails by one failed claim. It may be written once more; then it is dropped, never the clip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import erf, exp, log2, sqrt

from annotation.descriptions.claims import Claim, Reading, read
from annotation.descriptions.facts import AXES, FREE_WORDS, LEVELS, PAUSES
from annotation.descriptions.lexicons import WORDS
from voxmill.core.config import Config
from voxmill.data.records import Axis, ClaimOutcome, ClaimVerdict, Fact

CLASSIFIED = ("gender", "age", "emotion", "accent", "dialect", "scenario", "style", "laughter")
"""What models name. All else is measured on the signal, and the measurement judges texts by any writer."""
_FEMALE_HZ, _MALE_HZ, _GENDER_SPREAD, _GENDER_FROM = 200.0, 118.0, 4.0, 0.8


class VerificationConfig(Config):
    """When a claim passes or fails.

    `only_facts` is for writers that got facts alone; one that is sent the audio may know more than the facts.
    """

    measurement_sd: float = 0.35
    """Assumed error of a measured z against a listener's impression, in standard deviations."""
    pass_from: float = 0.5
    """A claim passes from this probability (0..1) on."""
    fail_below: float = 0.15
    """A claim fails below this probability (0..1); in between, it abstains."""
    only_facts: bool = True
    """A claim about something that is not among the facts fails; false: it is unjudged."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one source says of an attribute: that it is `word`, with a probability of 0..1."""

    source: str
    word: str
    probability: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Facts and classes of a clip.

    classes: by attribute, probabilities of the source that gave the writer its fact: it may contradict a claim, and
        never confirms one.
    answers: by attribute, what other sources say, each of which judges claims.
    """

    facts: Sequence[Fact]
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)

    def fact(self, attribute: str) -> Fact | None:
        return next((fact for fact in self.facts if fact.attribute == attribute), None)


@dataclass(frozen=True, slots=True)
class Checked:
    """A description's verdicts. `off_axis`: claims of the other axis. `unread`: its parts that could not be read."""

    verdicts: tuple[ClaimVerdict, ...]
    off_axis: tuple[str, ...]
    unread: tuple[str, ...] = ()

    @property
    def failed(self) -> list[ClaimVerdict]:
        return [verdict for verdict in self.verdicts if verdict.verdict == "fail"]

    @property
    def passed(self) -> bool:
        """No claim failed, and one passed or has no judge; which of those a stage takes its recipe says."""
        return not self.failed and any(verdict.verdict in ("pass", "unjudged") for verdict in self.verdicts)


def verify(
    text: str, language: str, axis: Axis, evidence: Evidence, config: VerificationConfig | None = None
) -> Checked:
    """Checks every claim that is read in a description; those of the other axis as well."""
    return verify_reading(read(text, language), axis, evidence, config)


def verify_reading(
    reading: Reading, axis: Axis, evidence: Evidence, config: VerificationConfig | None = None
) -> Checked:
    """Checks the claims of a text that was read already."""
    config, claims = config or VerificationConfig(), reading.claims
    if any(claim.attribute == "age" and claim.word == "child" for claim in claims):
        # A child's pitch says nothing about its gender.
        evidence = replace(evidence, facts=[replace(f, unit="") if f.unit == "Hz" else f for f in evidence.facts])
    verdicts = [check_claim(claim, evidence, config) for claim in claims] + _contradictions(claims)
    off_axis = tuple(claim.attribute for claim in claims if axis not in ("both", AXES[claim.attribute]))
    return Checked(tuple(verdicts), off_axis, reading.unread)


def check_claim(claim: Claim, evidence: Evidence, config: VerificationConfig) -> ClaimVerdict:
    """One claim against the evidence."""
    claimed = f"not {claim.word}" if claim.negated else claim.word
    own, judges = _sources(claim, evidence, config)
    if own is None and claim.attribute in CLASSIFIED and config.only_facts and not claim.negated:
        # A writer without the audio that was not told cannot know, be it true.
        judges = []
    if own is None and not judges:
        # Without evidence a claim is unsupported, whether or not it is true.
        unsupported = config.only_facts and not claim.negated
        fact = evidence.fact(claim.attribute)
        return ClaimVerdict(
            attribute=claim.attribute,
            claimed=claimed,
            predicted=None if fact is None else fact.word,
            verdict="fail" if unsupported else "unjudged",
        )
    known = [*judges, *([own] if own is not None else [])]
    outcomes = [_outcome(source.of_claim(claim), config) for source in known]
    verdict = _together(outcomes[: len(judges)], outcomes)
    # What decided stands beside the verdict.
    shown = next((s for s, outcome in zip(known, outcomes, strict=True) if outcome == verdict), known[0])
    return ClaimVerdict(
        attribute=claim.attribute,
        claimed=claimed,
        predicted=shown.word,
        verdict=verdict,
        probability=round(shown.of_claim(claim), 4),
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """What a source says: its word, and the probability of a claim before any negation."""

    word: str
    probability: float

    def of_claim(self, claim: Claim) -> float:
        return 1.0 - self.probability if claim.negated else self.probability


def _outcome(probability: float, config: VerificationConfig) -> ClaimOutcome:
    if probability >= config.pass_from:
        return "pass"
    return "fail" if probability < config.fail_below else "abstain"


def _together(judges: Sequence[ClaimOutcome], everyone: Sequence[ClaimOutcome]) -> ClaimOutcome:
    """Sources that contradict each other decide nothing; the writer's own fails a claim, and never passes it."""
    if "fail" in everyone:
        return "abstain" if "pass" in everyone else "fail"
    if not judges:
        return "unjudged"
    return "pass" if "pass" in judges else "abstain"


def _sources(claim: Claim, evidence: Evidence, config: VerificationConfig) -> tuple[_Source | None, list[_Source]]:
    """(the writer's own source, None where it has none; the judges)."""
    if claim.attribute not in CLASSIFIED:
        measured = _measured(claim, evidence, config)
        return None, [] if measured is None else [measured]
    judges = [
        _Source(answer.word, _agreement(claim, answer.word, answer.probability))
        for answer in evidence.answers.get(claim.attribute, ())
    ]
    if claim.attribute == "gender" and (pitch := _by_pitch(evidence)) is not None:
        judges.append(_Source(pitch.word, _agreement(claim, pitch.word, pitch.probability)))
    fact = evidence.fact(claim.attribute)
    if claim.attribute in evidence.classes:
        classes = evidence.classes[claim.attribute]
        best = max(classes, key=lambda name: classes[name])
        return _Source(best, classes.get(claim.word, 0.0)), judges
    if fact is None:
        return None, judges
    if claim.attribute in FREE_WORDS and claim.word not in WORDS.get(claim.attribute, ()):
        # A text that names an accent states that there is one: which one is not read.
        return _Source(fact.word, 1.0), judges
    return _Source(fact.word, _agreement(claim, fact.word, fact.probability or 1.0)), judges


def _agreement(claim: Claim, word: str, probability: float) -> float:
    return probability if word == claim.word else 1.0 - probability


def _by_pitch(evidence: Evidence) -> Answer | None:
    """What the speaker's pitch says about gender, the clip's where there is none of the speaker; None near the middle.

    Middles of women and men are 200 and 118 Hz (facts.py); 4 semitones is the spread that lively voices have over
    theirs, so that the man of the samples, at 175 Hz, is not called a woman.
    """
    fact = next((f for f in map(evidence.fact, ("register", "pitch")) if f is not None), None)
    if fact is None or fact.value is None or fact.unit != "Hz" or fact.value <= 0:
        return None
    semitones = 12 * log2(fact.value / sqrt(_FEMALE_HZ * _MALE_HZ))
    female = 1 / (1 + exp(-semitones * 12 * log2(_FEMALE_HZ / _MALE_HZ) / _GENDER_SPREAD**2))
    word, probability = ("female", female) if female >= 0.5 else ("male", 1 - female)
    return Answer("pitch", word, probability) if probability >= _GENDER_FROM else None


def _measured(claim: Claim, evidence: Evidence, config: VerificationConfig) -> _Source | None:
    """What was measured of the clip or over the speaker's clips, which judges texts by any writer."""
    fact = evidence.fact(claim.attribute)
    if fact is None:
        # Texture is measured though nothing stood out: then a claim of it is open, not wrong.
        return None
    if claim.attribute in LEVELS:
        if fact.z is None:
            return None
        return _Source(fact.word, _within(fact.z, claim.attribute, claim.word, config.measurement_sd))
    if claim.attribute == "pauses":
        distance = abs(PAUSES.index(fact.word) - PAUSES.index(claim.word))
        return _Source(fact.word, (0.9, 0.3, 0.02)[distance])
    if claim.attribute == "texture":
        return _Source(fact.word, _texture(fact.word, claim.word))
    return _Source(fact.word, _agreement(claim, fact.word, fact.probability or 0.9))


def _within(z: float, attribute: str, word: str, sd: float) -> float:
    """Probability that the value, as a listener perceives it, lies where the word is right.

    'fast' is right of anything from there on: nobody is wrong who calls very fast speech fast. 'Moderate' is a band.
    """
    step = LEVELS[attribute].index(word) - 2
    above = 0.5 * (1 + erf((z - (abs(step) - 0.5) * (1 if step >= 0 else -1)) / (sd * sqrt(2))))
    if step > 0:
        return above
    if step < 0:
        return 1.0 - above
    return 0.5 * (erf((z + 0.5) / (sd * sqrt(2))) - erf((z - 0.5) / (sd * sqrt(2))))


def _texture(measured: str, claimed: str) -> float:
    if measured == claimed:
        return 0.88
    # One weak measure separates rough from breathy; both are the opposite of clear.
    return 0.3 if "clear" not in (measured, claimed) else 0.05


def _contradictions(claims: Sequence[Claim]) -> list[ClaimVerdict]:
    """Two words for one attribute, such as 'slow' and 'fast', fail together whatever was measured."""
    verdicts = []
    for attribute in dict.fromkeys(claim.attribute for claim in claims):
        words = [claim.word for claim in claims if claim.attribute == attribute and not claim.negated]
        if _disagree(attribute, words):
            verdicts.append(
                ClaimVerdict(
                    attribute=attribute, claimed=" and ".join(words), predicted=None, verdict="fail", probability=0.0
                )
            )
    return verdicts


def _disagree(attribute: str, words: Sequence[str]) -> bool:
    if attribute in LEVELS:
        steps = [LEVELS[attribute].index(word) - 2 for word in words]
        return bool(steps) and (min(steps) * max(steps) < 0 or (0 in steps and max(map(abs, steps)) > 0))
    return attribute in ("gender", "age", "pauses") and len(set(words)) > 1


def recall(verdicts: Sequence[ClaimVerdict], facts: Mapping[str, str], axis: Axis) -> float | None:
    """Share of the axis's facts that the description states rightly, 0..1; None where there are no facts.

    Facts in a corpus's own words, which are not read back, do not count.
    """
    wanted = [name for name in facts if axis in ("both", AXES[name]) and name not in FREE_WORDS]
    if not wanted:
        return None
    stated = {
        verdict.attribute
        for verdict in verdicts
        if verdict.verdict == "pass" or (verdict.verdict != "fail" and verdict.claimed == facts.get(verdict.attribute))
    }
    return sum(name in stated for name in wanted) / len(wanted)
