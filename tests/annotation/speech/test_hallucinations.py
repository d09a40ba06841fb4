"""Texts that recognisers invent are known in any spelling; what people say is not taken for one."""

import pytest

from annotation.speech.hallucinations import is_hallucination


@pytest.mark.parametrize(
    "text",
    [
        "Untertitel der Amara.org-Community",
        "untertitel im auftrag des ZDF für funk, 2017",
        "Das war es. Untertitelung des ZDF, 2020",
        "Sous-titres réalisés par la communauté d’Amara.org",
        "Субтитры сделал DimaTorzok",
        "Редактор субтитров А. Синецкая  Корректор А. Егорова",
        "Thank you for watching!",
        "Thanks for watching. Thanks for watching!",
        "ご視聴ありがとうございました。",
        "請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目",
        "시청해주셔서 감사합니다.",
    ],
)
def test_known_inventions(text: str) -> None:
    assert is_hallucination(text)


@pytest.mark.parametrize(
    "text",
    [
        "Thank you.",
        "Thank you for watching the children while I was away.",
        "Untertitel sind für Gehörlose wichtig.",
        "Продолжение следует завтра в девять.",
        "Se abrió la comunidad de vecinos.",
        "",
    ],
)
def test_what_people_say(text: str) -> None:
    assert not is_hallucination(text)
