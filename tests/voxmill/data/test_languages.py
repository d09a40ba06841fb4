"""Languages as people write them become our codes; what is no language is refused."""

import pytest

from voxmill.core.errors import UserError
from voxmill.data.languages import (
    DIALECTS,
    LANGUAGES,
    dialect_code,
    from_whisper,
    is_standard_chinese,
    language_code,
    language_name,
    to_whisper,
)


def test_all_languages_of_the_report_have_names() -> None:
    assert len(LANGUAGES) == 30 and len(DIALECTS) == 9
    assert [language_code(name) for name in LANGUAGES.values()] == list(LANGUAGES)
    assert [language_code(code) for code in LANGUAGES | DIALECTS] == [*LANGUAGES, *DIALECTS]
    assert language_name("sw") == "Swahili"


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("EN", "en"),
        (" English ", "en"),
        ("en_US", "en"),
        ("eng", "en"),
        ("ger", "de"),
        ("deu", "de"),
        ("GERMAN", "de"),
        ("es-419", "es"),
        ("English (US)", "en"),
        ("iw", "he"),
        ("cmn", "zh"),
        ("zh-Hant-HK", "zh"),
        ("Mandarin Chinese", "zh"),
        ("yue", "zh-yue"),
        ("Cantonese", "zh-yue"),
        ("zh-sichuan", "zh-sichuan"),
        ("nan", "zh-minnan"),
        ("zh-min-nan", "zh-minnan"),
        ("wuu-CN", "zh-wu"),
        ("Shanghainese", "zh-wu"),
        ("zh_CN_shaanxi", "zh-shaanxi"),
        ("zh-SHANDONG", "zh-shandong"),
        ("cmn-x-tianjin", "zh-tianjin"),
        ("Northeastern Mandarin", "zh-dongbei"),
        ("闽南语", "zh-minnan"),
        ("粵語", "zh-yue"),
        ("zh-Hans-CN", "zh"),
        ("hak", "hak"),
        ("yue-HK", "zh-yue"),
        ("Cantonese (Guangdong)", "zh-yue"),
        ("nb-NO", "no"),
        ("fil", "tl"),
        ("arb", "ar"),
        ("jw", "jv"),
        ("Catalan", "ca"),
        ("und", None),
        ("mul", None),
    ],
)
def test_a_language_by_tag_code_or_name(written: str, code: str | None) -> None:
    assert language_code(written) == code


@pytest.mark.parametrize(
    "written", ["xx", "Elvish", "unknown", "en-", "e", "12", "zxx", "qaa", "x-mine", "audio/a.wav"]
)
def test_what_is_no_language_is_refused(written: str) -> None:
    with pytest.raises(UserError, match="is no language"):
        language_code(written)


@pytest.mark.parametrize("written", ["zh-hakka", "zh-CN-hunan", "zh-x-mine", "cmn-x-mine"])
def test_a_kind_of_chinese_without_a_tag_is_refused_and_not_taken_for_mandarin(written: str) -> None:
    with pytest.raises(UserError, match="without a tag here; write zh, or one of zh-sichuan"):
        language_code(written)


def test_what_names_no_dialect_names_none() -> None:
    assert [dialect_code(name) for name in ("", "zh", "Mandarin", "Northeastern", "普通话", "x", "dialect")] == [
        None
    ] * 7
    assert all(map(is_standard_chinese, ("zh", "cmn-Hans-CN", "Mandarin Chinese", "Putonghua", "普通话")))
    assert not any(map(is_standard_chinese, ("yue", "Sichuan", "en", "zh-TW")))


def test_whisper_knows_cantonese_by_its_own_code_where_it_does() -> None:
    old, large_v3 = ["en", "zh", "ja"], ["en", "zh", "ja", "yue"]
    assert [to_whisper("zh-yue", known) for known in (old, large_v3)] == ["zh", "yue"]
    assert [to_whisper(code, large_v3) for code in ("zh-sichuan", "zh", "zh-minnan")] == ["zh"] * 3
    assert from_whisper("yue") == "zh-yue"
