"""Claims are read out of free sentences and checked; the unknown is unjudged, or fails without the audio."""

import pytest

from annotation.descriptions.claims import read_claims
from annotation.descriptions.facts import LEVELS
from annotation.descriptions.verification import Evidence, VerificationConfig, recall, verify
from voxmill.data.records import Fact

FACTS = [
    Fact("gender", "design", "female", probability=0.95),
    Fact("texture", "design", "breathy", value=8.0, unit="dB", z=-2.0),
    Fact("pitch", "style", "high", value=240.0, unit="Hz", z=1.0),
    Fact("rate", "style", "slow", value=4.8, unit="syllables/s", z=-1.1),
    Fact("intonation", "style", "moderate", value=3.0, unit="semitones", z=0.0),
    Fact("pauses", "style", "few", value=0.01, unit="share of time"),
]
EVIDENCE = Evidence(FACTS, {"gender": {"female": 0.95, "male": 0.05}})
WITH_AUDIO = VerificationConfig(only_facts=False)


def outcomes(text: str, config: VerificationConfig | None = None) -> dict[str, str]:
    return {f"{v.attribute}={v.claimed}": v.verdict for v in verify(text, "en", "style", EVIDENCE, config).verdicts}


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("She speaks slowly in a high-pitched voice.", {"gender": "female", "rate": "slow", "pitch": "high"}),
        (
            "A deep, gravelly male voice, very fast.",
            {"pitch": "low", "texture": "rough", "gender": "male", "rate": "very fast"},
        ),
        ("The speaker's pitch is low and the pace is moderate.", {"pitch": "low", "rate": "moderate"}),
        ("A little girl whispers.", {"gender": "female", "age": "child", "phonation": "whispered"}),
        ("Cheerful and energetic, pausing often.", {"emotion": "happy", "energy": "strong", "pauses": "many"}),
        (
            "An old man with a British accent reading an audiobook.",
            {"age": "elderly", "gender": "male", "accent": "stated", "scenario": "stated"},
        ),
        ("Low energy, not low pitch", {"energy": "soft", "pitch": "low"}),
        ("She emphasizes every word.", {"gender": "female", "emphasis": "stated"}),
        ("A woman sings in Cantonese.", {"gender": "female", "style": "song", "dialect": "Cantonese"}),
        ("A sing-song voice from Sichuan", {"intonation": "lively", "dialect": "Sichuanese"}),
        ("Nothing of the kind.", {}),
    ],
)
def test_free_sentences_are_read(text: str, claims: dict[str, str]) -> None:
    checked = read_claims(text, "en")
    assert {claim.attribute: claim.word for claim in checked} == claims


def test_words_inside_words_are_not_claims() -> None:
    assert read_claims("The human mandate was breakfast, therefore sadder and bold.", "en") == []


def test_negation_reverses_a_claim_and_a_comma_ends_it() -> None:
    checked = read_claims("Not fast, high-pitched, and never really sad.", "en")
    assert [(c.attribute, c.word, c.negated) for c in checked] == [
        ("rate", "fast", True),
        ("pitch", "high", False),
        ("emotion", "sad", True),
    ]
    assert outcomes("Not fast.") == {"rate=not fast": "pass"}
    assert outcomes("Not slow.") == {"rate=not slow": "fail"}
    assert [c.negated for c in read_claims("habla no deprisa", "es")] == [True]


def test_true_claims_pass_with_their_probability_and_false_ones_fail() -> None:
    checked = verify("A woman speaks slowly at a high pitch, hardly pausing.", "en", "style", EVIDENCE)
    assert checked.passed and checked.off_axis == ("gender",)
    assert all(0.5 <= (v.probability or 0) <= 1 for v in checked.verdicts)
    wrong = verify("A man speaks very fast in a deep voice with many pauses.", "en", "style", EVIDENCE)
    assert {v.attribute for v in wrong.failed} == {"gender", "rate", "pitch", "pauses"} and not wrong.passed
    assert next(v for v in wrong.verdicts if v.attribute == "gender").predicted == "female"


def test_a_border_is_no_failure() -> None:
    assert outcomes("Speaks at a medium pitch.") == {"pitch=medium": "fail"}
    near = Evidence([Fact("pitch", "style", "high", value=225.0, unit="Hz", z=0.6)])
    assert verify("Medium pitch.", "en", "style", near).verdicts[0].verdict == "abstain"
    assert verify("High pitch.", "en", "style", near).verdicts[0].verdict == "pass"


def test_very_fast_speech_may_be_called_fast_and_not_the_other_way_round() -> None:
    very = Evidence([Fact("rate", "style", "very fast", value=9.0, unit="", z=2.2)])
    assert verify("Fast.", "en", "style", very).passed
    fast = Evidence([Fact("rate", "style", "fast", value=7.0, unit="", z=0.8)])
    assert verify("Very fast.", "en", "style", fast).failed


def test_probabilities_of_the_words_of_a_scale_are_shares() -> None:
    for z in (-3.0, -0.5, 0.0, 1.4, 2.0):
        evidence = Evidence([Fact("energy", "style", "moderate", value=1.0, unit="", z=z)])
        config = VerificationConfig(pass_from=2.0, fail_below=-1.0)
        share = {
            word: verify(f"{phrase} force", "en", "style", evidence, config).verdicts[0].probability or 0.0
            for word, phrase in (("soft", "gentle"), ("moderate", "moderate"), ("strong", "strong"))
        }
        assert sum(share.values()) == pytest.approx(1.0, abs=1e-3) and set(share) < set(LEVELS["energy"])


def test_what_is_not_known_fails_a_writer_without_audio_and_is_unjudged_for_one_with_it() -> None:
    text = "A happy British woman, telling an audiobook forcefully."
    assert outcomes(text)["emotion=happy"] == outcomes(text)["energy=strong"] == "fail"
    verdicts = outcomes(text, WITH_AUDIO)
    assert verdicts == {
        "emotion=happy": "unjudged",
        "accent=stated": "unjudged",
        "scenario=stated": "unjudged",
        "energy=strong": "unjudged",
        "gender=female": "pass",
    }


def test_claiming_both_is_wrong_whatever_was_measured() -> None:
    assert verify("Slow and fast.", "en", "style", Evidence([]), WITH_AUDIO).failed
    assert verify("A man and a woman.", "en", "design", Evidence([]), WITH_AUDIO).failed
    assert not verify("Very slow, slow.", "en", "style", Evidence([]), WITH_AUDIO).failed


def test_a_text_without_claims_is_no_description() -> None:
    assert not verify("The quick summary is missing here.", "en", "style", Evidence([])).passed
    assert not verify("", "en", "style", EVIDENCE).passed


def test_recall_counts_the_axis_facts_that_are_stated_rightly() -> None:
    facts = {fact.attribute: fact.word for fact in FACTS}
    checked = verify("She speaks slowly in a high-pitched voice with many pauses.", "en", "style", EVIDENCE)
    assert recall(checked.verdicts, facts, "style") == pytest.approx(2 / 4)
    assert recall(checked.verdicts, facts, "design") == pytest.approx(1 / 2)
    assert recall([], {}, "style") is None


def test_songs_and_dialects_are_checked_by_their_words() -> None:
    song = Evidence([Fact("style", "style", "song", value=0.9), Fact("dialect", "design", "Wu", source="given")])
    said = {
        f"{v.attribute}={v.claimed}": v.verdict for v in verify("Singing in Cantonese.", "en", "style", song).verdicts
    }
    assert said == {"style=song": "unjudged", "dialect=Cantonese": "fail"}
    news = Evidence([Fact("style", "style", "news", source="given")])
    assert [v.verdict for v in verify("He sings.", "en", "style", news).verdicts if v.attribute == "style"] == ["fail"]
