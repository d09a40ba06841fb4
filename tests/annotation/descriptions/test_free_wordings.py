"""Free wordings of six languages, both ways: what is claimed, what is denied, and what could not be read."""

import pytest

from annotation.descriptions.claims import read
from annotation.descriptions.verification import Answer, Evidence, VerificationConfig, verify, verify_reading
from voxmill.data.records import Fact

# A slow and low voice of a man.
MAN = Evidence(
    [
        Fact("register", "design", "low", value=110.0, unit="Hz", z=-0.9),
        Fact("pitch", "style", "low", value=105.0, unit="Hz", z=-1.1),
        Fact("rate", "style", "slow", value=4.0, unit="syllables/s", z=-1.2),
        Fact("energy", "style", "strong", value=12.0, unit="dB", z=1.2),
        Fact("intonation", "style", "lively", value=4.0, unit="semitones", z=1.1),
    ],
    answers={"gender": [Answer("classifier", "male", 0.98)]},
)
BY_THE_CORPUS = VerificationConfig(only_facts=False)


def outcome(text: str, language: str, evidence: Evidence = MAN) -> str:
    checked = verify(text, language, "both", evidence, BY_THE_CORPUS)
    return "fail" if checked.failed else "unread" if checked.unread else "pass" if checked.passed else "none"


@pytest.mark.parametrize(
    ("language", "true", "false"),
    [
        ("en", "A man with a low voice, slow and loud.", "A woman with a high voice, fast and quiet."),
        ("es", "Un señor de voz grave habla despacio y con fuerza.", "Una mujer de voz aguda habla rápidamente."),
        ("fr", "Un monsieur à la voix grave parle lentement.", "Une dame à la voix aiguë parle très vite."),
        ("it", "Un uomo dalla voce grave parla lentamente.", "Una ragazza dalla voce acuta parla in fretta."),
        ("ru", "Мужчина с низким голосом говорит медленно.", "Женщина с высоким голосом говорит быстро и тихо."),
        ("zh", "一位男性，声音低沉，语速偏慢，抑扬顿挫。", "一位女士，声音高亢，语速飞快，语气平淡。"),
    ],
)
def test_true_captions_are_kept_and_false_ones_dropped(language: str, true: str, false: str) -> None:
    assert (outcome(true, language), outcome(false, language)) == ("pass", "fail")


@pytest.mark.parametrize(
    ("language", "text", "claims"),
    [
        ("en", "not low but high in pitch", {"pitch: high"}),
        ("en", "Neither slow nor fast.", {"rate: not slow", "rate: not fast"}),
        ("en", "The volume is low and the pitch is high.", {"energy: soft", "pitch: high"}),
        ("en", "It isn't slow.", {"rate: not slow"}),
        ("en", "Never not slow.", {"rate: slow"}),
        ("es", "La voz no es aguda, sino grave.", {"pitch: not high", "pitch: low"}),
        ("es", "NO ES NADA RÁPIDO", {"rate: not fast"}),
        ("fr", "La voix n’est ni aiguë ni grave.", {"pitch: not high", "pitch: not low"}),
        ("it", "La voce non è acuta, ma grave.", {"pitch: not high", "pitch: low"}),
        (
            "ru",
            "Голос не высокий, а низкий; немного удивлённо",
            {"pitch: not high", "pitch: low", "emotion: surprised"},
        ),
        ("ru", "немного удивленно", {"emotion: surprised"}),
        ("ru", "Говорит гро\u0301мко", {"energy: strong"}),
        ("zh", "音调不高不低，音量较大。", {"pitch: not high", "pitch: not low", "energy: strong"}),
        ("zh", "音调不高，而是偏低；语速慢", {"pitch: not high", "pitch: low", "rate: slow"}),
        ("fr", "Voix TRE\u0300S GRAVE", {"register: very low"}),
    ],
)
def test_negation_contrast_and_degree(language: str, text: str, claims: set[str]) -> None:
    said = {f"{c.attribute}: {'not ' * c.negated}{c.word}" for c in read(text, language).claims}
    assert said == claims


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", 'She says: "A very fast old man shouted at me."'),
        ("en", "Mrs. Young speaks."),
        ("es", "La mujer dice: «un hombre grita muy deprisa»."),
        ("ru", "Женщина говорит: «быстро и громко кричал старик»."),
        ("zh", "她说：“他非常愤怒地大声喊叫着跑了过来”。"),
    ],
)
def test_quoted_speech_and_names_are_no_claims(language: str, text: str) -> None:
    assert {claim.attribute for claim in read(text, language).claims} <= {"gender"}


@pytest.mark.parametrize(
    ("language", "text", "unread"),
    [
        ("en", "A slow voice. The timbre glows like amber.", ("the timbre glows like amber",)),
        ("en", "A slow voice, muy aguda y rápida.", ("muy aguda y rapida",)),
        ("es", "Una voz grave. Recuerda al terciopelo.", ("recuerda al terciopelo",)),
        ("zh", "语速偏慢，像天鹅绒一样。", ("像天鹅绒一样",)),
        ("ru", "Говорит медленно, словно бархат.", ("словно бархат",)),
    ],
)
def test_what_no_word_explains_is_unread(language: str, text: str, unread: tuple[str, ...]) -> None:
    assert read(text, language).unread == unread
    assert outcome(text, language) in ("unread", "fail")


def test_a_writers_own_source_never_confirms_and_sources_that_disagree_decide_nothing() -> None:
    def verdict(text: str, evidence: Evidence) -> str:
        (only,) = verify_reading(read(text, "en"), "design", evidence, BY_THE_CORPUS).verdicts
        return only.verdict

    own = {"gender": {"female": 0.99, "male": 0.01}}
    fact = Fact("gender", "design", "female", probability=0.99, source="classified")
    between = Fact("pitch", "style", "medium", value=155.0, unit="Hz", z=0.0)
    assert verdict("A woman.", Evidence([fact, between], own)) == "unjudged"
    assert verdict("A man.", Evidence([fact, between], own)) == "fail"
    high = Fact("pitch", "style", "medium", value=205.0, unit="Hz", z=0.0)
    assert verdict("A woman.", Evidence([fact, high], own)) == "pass"
    low = Fact("pitch", "style", "low", value=110.0, unit="Hz", z=-2.0)
    assert verdict("A woman.", Evidence([fact, low], own)) == "abstain"
    second = {"gender": [Answer("cnn", "female", 0.97)]}
    assert verdict("A woman.", Evidence([fact, between], own, second)) == "pass"
    # A boy speaks as high as a woman.
    young = verify_reading(read("A boy.", "en"), "design", Evidence([high]), BY_THE_CORPUS)
    assert {v.verdict for v in young.verdicts} == {"unjudged"}


def test_a_long_text_is_read_in_time() -> None:
    import time

    started = time.perf_counter()
    reading = read("A slow, deep voice, not loud. " * 2000, "en")
    assert {claim.attribute for claim in reading.claims} >= {"rate", "energy"} and not reading.unread
    assert time.perf_counter() - started < 20
