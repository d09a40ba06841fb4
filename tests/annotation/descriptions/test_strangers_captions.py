"""Captions by another hand than the lexicon's: a false one is never kept, a true one never denied."""

import pytest

from annotation.descriptions.verification import Answer, Evidence, VerificationConfig, verify
from voxmill.data.records import Fact

# A slow, soft, lively man with a low voice who hardly pauses.
EVIDENCE = Evidence(
    [
        Fact("gender", "design", "male", probability=0.97),
        Fact("register", "design", "low", value=95.0, unit="Hz", z=-1.5),
        Fact("pitch", "style", "low", value=95.0, unit="Hz", z=-1.5),
        Fact("rate", "style", "slow", value=4.0, unit="syllables/s", z=-1.3),
        Fact("energy", "style", "soft", z=-1.2),
        Fact("intonation", "style", "lively", z=1.3),
        Fact("pauses", "style", "few", value=0.02),
    ],
    {"gender": {"male": 0.97, "female": 0.03}},
    {"gender": [Answer("cnn", "male", 0.99)]},
)
TRUE = {
    "en": [
        "A gentleman with a deep, resonant voice takes his time, speaking in hushed tones.",
        "Soft-spoken guy, low register, drawling along with lots of ups and downs in his melody.",
        "He is in no hurry at all and hardly ever stops for breath; the voice sits low.",
        "Low male voice, unhurried tempo, gentle volume, expressive inflection.",
        "The man's pitch dips low, and he murmurs rather than projects.",
        "This fellow speaks at a relaxed clip with a quiet, animated delivery.",
    ],
    "es": [
        "Un señor de voz grave que habla con calma y en voz baja, con mucha expresividad.",
        "Hombre de tono bajo, ritmo pausado y volumen suave.",
        "Se trata de un varón que no tiene prisa y apenas hace pausas.",
        "Voz masculina profunda; la entonación sube y baja con viveza.",
    ],
    "fr": [
        "Un monsieur à la voix grave parle sans se presser, tout doucement.",
        "Voix d'homme, timbre bas, débit lent, intonation expressive.",
        "C'est un homme qui ne hausse jamais le ton et prend son temps.",
    ],
    "it": [
        "Un signore dalla voce bassa parla con calma e a volume contenuto.",
        "Voce maschile grave, ritmo lento, intonazione vivace.",
        "È un uomo che non ha fretta e fa poche pause.",
    ],
    "ru": [
        "Мужчина с низким голосом говорит неторопливо и негромко.",
        "Низкий мужской голос, медленный темп, выразительная интонация.",
        "Он никуда не спешит и почти не делает пауз.",
    ],
    "zh": [
        "一位男士用低沉的嗓音慢慢地说话,声音很轻。",
        "男声,音调偏低,语速较慢,抑扬顿挫。",
        "他不慌不忙,几乎没有停顿。",
    ],
}
FALSE = {
    "en": [
        "A lady with a shrill voice rattles off her words at the top of her lungs.",
        "High-pitched female, rapid-fire delivery, booming volume, flat intonation.",
        "She is racing through the text without any melody at all.",
        "The man's voice is high and he is yelling.",
        "He gabbles quickly in a droning monotone.",
    ],
    "es": [
        "Una mujer de voz aguda que habla a toda prisa y a gritos.",
        "Voz femenina, ritmo acelerado, tono monótono.",
        "El hombre habla muy deprisa y muy fuerte.",
    ],
    "fr": [
        "Une dame à la voix aiguë parle à toute vitesse et très fort.",
        "Voix de femme, débit rapide, ton monocorde.",
        "L'homme parle fort et vite.",
    ],
    "it": [
        "Una signora dalla voce acuta parla in fretta e ad alta voce.",
        "Voce femminile, ritmo veloce, tono monotono.",
        "L'uomo parla forte e veloce.",
    ],
    "ru": [
        "Женщина с высоким голосом говорит быстро и громко.",
        "Женский голос, быстрый темп, монотонно.",
        "Мужчина говорит громко и торопливо.",
    ],
    "zh": ["一位女士用尖细的嗓音飞快地大声说话。", "女声,语速快,语调平淡。", "他说得又快又响。"],
}
HEARD = VerificationConfig(only_facts=False)


@pytest.mark.parametrize("language", TRUE)
def test_true_captions_are_not_denied(language: str) -> None:
    for caption in TRUE[language]:
        checked = verify(caption, language, "both", EVIDENCE, HEARD)
        assert not checked.failed and checked.passed, caption


@pytest.mark.parametrize("language", FALSE)
def test_false_captions_are_denied(language: str) -> None:
    for caption in FALSE[language]:
        assert verify(caption, language, "both", EVIDENCE, HEARD).failed, caption


def test_half_of_the_true_ones_are_read_whole() -> None:
    read = [not verify(text, name, "both", EVIDENCE, HEARD).unread for name, some in TRUE.items() for text in some]
    assert 2 * sum(read) >= len(read)


def test_the_gender_beside_an_adjective_is_not_lost() -> None:
    checked = verify("Low female voice.", "en", "both", EVIDENCE, HEARD)
    assert [verdict.attribute for verdict in checked.failed] == ["gender"]
