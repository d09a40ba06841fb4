"""Languages as people write them become our codes; what is no language is refused."""

import pytest

from voxmill.core.errors import UserError
from voxmill.data.languages import DIALECTS, LANGUAGES, language_code, language_name


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
