"""Is a description true of its clip? Its claims, each checked against what was measured or classified.

Report section 3.6: descriptions are 'verified with some dedicated expert classifiers in terms of gender, age and
emotion'; pitch, intonation, rate, energy and pauses are checked against measurements. Where the same classifier gave a
text writer its facts, its verdict on them shows that the text is faithful, not that the classifier is right; only for
a writer that is sent the audio are the two independent.

A description fails by one failed claim. It may be written once more; then it is dropped, never the clip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import erf, sqrt

from annotation.descriptions.claims import Claim, read_claims
from annotation.descriptions.facts import AXES, FREE_WORDS, LEVELS, PAUSES
from annotation.descriptions.lexicons import WORDS
from voxmill.core.config import Config
from voxmill.data.records import Axis, ClaimOutcome, ClaimVerdict, Fact


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
    """A claim about something that is not among the facts fails; false: it abstains."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Facts and classes of a clip. `classes`: attribute to its classifier's probabilities, where it did not abstain."""

    facts: Sequence[Fact]
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def fact(self, attribute: str) -> Fact | None:
        return next((fact for fact in self.facts if fact.attribute == attribute), None)


@dataclass(frozen=True, slots=True)
class Checked:
    """A description's verdicts. `passed`: some claim passed and none failed. `off_axis`: claims of the other axis."""

    verdicts: tuple[ClaimVerdict, ...]
    off_axis: tuple[str, ...]

    @property
    def failed(self) -> list[ClaimVerdict]:
        return [verdict for verdict in self.verdicts if verdict.verdict == "fail"]

    @property
    def passed(self) -> bool:
        return not self.failed and any(verdict.verdict == "pass" for verdict in self.verdicts)


def verify(
    text: str, language: str, axis: Axis, evidence: Evidence, config: VerificationConfig | None = None
) -> Checked:
    """Checks every claim that is read in a description; those of the other axis as well."""
    config = config or VerificationConfig()
    claims = read_claims(text, language)
    verdicts = [check_claim(claim, evidence, config) for claim in claims] + _contradictions(claims)
    return Checked(
        tuple(verdicts), tuple(claim.attribute for claim in claims if axis not in ("both", AXES[claim.attribute]))
    )


def check_claim(claim: Claim, evidence: Evidence, config: VerificationConfig) -> ClaimVerdict:
    """One claim against the evidence."""
    claimed = f"not {claim.word}" if claim.negated else claim.word
    predicted, probability = _probability(claim, evidence, config)
    if probability is None:
        # Without evidence a claim is unsupported, whether or not it is true.
        unsupported = config.only_facts and not claim.negated
        return ClaimVerdict(
            attribute=claim.attribute,
            claimed=claimed,
            predicted=predicted,
            verdict="fail" if unsupported else "abstain",
        )
    if claim.negated:
        probability = 1.0 - probability
    outcome: ClaimOutcome = "abstain"
    if probability >= config.pass_from:
        outcome = "pass"
    elif probability < config.fail_below:
        outcome = "fail"
    return ClaimVerdict(
        attribute=claim.attribute,
        claimed=claimed,
        predicted=predicted,
        verdict=outcome,
        probability=round(probability, 4),
    )


def _probability(claim: Claim, evidence: Evidence, config: VerificationConfig) -> tuple[str | None, float | None]:
    """(measured word or class, probability that the claim holds before any negation); None where nothing is known."""
    fact = evidence.fact(claim.attribute)
    if claim.attribute in evidence.classes:
        classes = evidence.classes[claim.attribute]
        return max(classes, key=lambda name: classes[name]), classes.get(claim.word, 0.0)
    if claim.attribute in LEVELS:
        if fact is None or fact.z is None:
            return None, None
        return fact.word, _within(fact.z, claim.attribute, claim.word, config.measurement_sd)
    if fact is None:
        # Texture is measured though nothing stood out: then a claim of it is open, not wrong.
        return None, None
    if claim.attribute == "pauses":
        distance = abs(PAUSES.index(fact.word) - PAUSES.index(claim.word))
        return fact.word, (0.9, 0.3, 0.02)[distance]
    if claim.attribute == "texture":
        return fact.word, _texture(fact.word, claim.word)
    if claim.attribute in FREE_WORDS and claim.word not in WORDS.get(claim.attribute, ()):
        # A text that names an accent states that there is one: which one is not read.
        return fact.word, 1.0
    return fact.word, (fact.probability or 1.0) if fact.word == claim.word else 1.0 - (fact.probability or 1.0)


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
        return 0.8
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
    stated = {verdict.attribute for verdict in verdicts if verdict.verdict == "pass"}
    return sum(name in stated for name in wanted) / len(wanted)
