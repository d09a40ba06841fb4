"""Conditions over columns: what they mean, and that a mistake is one line which names it and runs nothing."""

from dataclasses import replace

import pytest

from pipelines.config import SELECTABLE, AnnotateConfig
from pipelines.corpus.clips import index_row
from tests.pipelines.corpus.made_clips import made_clip
from voxmill.core.config import load_config
from voxmill.core.errors import UserError
from voxmill.data.conditions import MAX_CHARACTERS, Condition
from voxmill.data.records import Clip
from voxmill.data.schemas import CLIPS


def clip() -> Clip:
    return index_row(replace(made_clip(speaker="Zoë", snr_db=25.0, text="Well, he said"), predicted_wer=0.2))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("language == 'en'", True),
        ("language != 'en'", False),
        ("language in ('de', 'en') and quality.snr_db > 20", True),
        ("language not in ['de', 'en'] or not quality.snr_db > 20", False),
        ("2 < duration <= 4.0", True),
        ("2 < duration < 4.0", False),
        ("'he ' in text and 'HE' not in text", True),
        ("lower(speaker) == 'zoë' and len(words) == 0 and len(text) > 3", True),
        ("transcript.redecoded == False", True),
        ("not transcript.redecoded", True),
        ("(end_sample - start_sample) / sample_rate >= -duration * 2 + 12", True),
        ("predicted_wer is not None and licence is None", True),
        ("path == 's'", True),
        ("language == 'en'\n  and '\\d' not in text\n", True),
        # Nulls: neither true nor false, as in SQL.
        ("prosody.f0_median_hz > 100", False),
        ("not prosody.f0_median_hz > 100", False),
        ("prosody.f0_median_hz > 100 or language == 'en'", True),
        ("prosody.f0_median_hz > 100 and language == 'de' or language == 'en'", True),
        ("gender.label != 'female'", False),
        ("licence not in ('a', 'b')", False),
        ("duration / 0 > 1", False),
        ("1e308 * 1e308 > duration", True),
        ("99999999999999999999999999 * 1e300 * duration > 0", True),
    ],
)
def test_what_a_condition_means(condition: str, expected: bool) -> None:
    assert Condition(condition)(clip()) is expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("langage == 'en'", "unknown column 'langage'; did you mean language?"),
        ("snr_db > 3", "unknown column 'snr_db'; did you mean quality.snr_db?"),
        ("quality > 3", "quality has fields; name one, such as quality.dnsmos_sig"),
        ("quality.loud > 3", "unknown column 'quality.loud'"),
        ("expressiveness > 0.5", "expressiveness is not known before clips are selected"),
        ("cluster == 'a'", "cluster is not known before"),
        ("language = 'en'", "cannot be read: = is not known; write =="),
        ("language == 'en' AND duration > 3", "cannot be read: AND is not known; write and"),
        ("language <> 'en'", "cannot be read: <> is not known; write !="),
        ("text LIKE '%a = b%'", "cannot be read: LIKE is not known; write 'part' in column"),
        ("language == 'en", "cannot be read at character 13 (unterminated string literal"),
        ("duration >", "cannot be read (invalid syntax)"),
        ("language == 3", "a text stands in quotes, a number without"),
        ("duration > '3'", "duration is a number and '3' is a text"),
        ("language in ('en', 3)", "3 is a number, but language is a text"),
        ("language in 'en' + 'de'", "is a text, no number to calculate with"),
        ("duration in 3", "write a list, such as duration in ('a', 'b')"),
        ("licence == None", "nothing equals None; write licence is None"),
        ("licence is 'x'", "`is` is for None alone; write =="),
        ("licence is null", "null is no column; write None"),
        ("language", "language is a text, no condition; compare it, such as language == 'a'"),
        ("words", "compare it, such as len(words) > 0"),
        ("(language == 'en') & (duration > 3)", "& | ~ are not known; write and, or, not"),
        ("text.startswith('a')", "text.startswith() is no function here"),
        ("text.startswith", "unknown column 'text.startswith'"),
        ("text[0] == 'a'", "text[0] is not known here"),
        ("len(duration) > 1", "duration is a number; it takes text"),
        ("len(text, text) > 1", "len() is no function here"),
        ("duration ** 9 > 1", "is not known here"),
        ("duration if True else 1", "is not known here"),
        ("f'{text}' == 'a'", "is not known here"),
        ("b'a' == text", "is not known here"),
        ("1j == duration", "is not known here"),
        ("(x := 3) == duration", "is not known here"),
        ("", "is empty; write null"),
        ("   ", "is empty; write null"),
        ("text == 'a\x00'", "cannot be read"),
        ("duration > " + "1" * MAX_CHARACTERS, "at most 4000 are read"),
        ("duration > " + "(" * 900 + "1" + ")" * 900, "cannot be read"),
        ("not " * 900 + "transcript.redecoded", "nested more than 60 deep"),
        ("duration > " + "-" * 3000 + "1", ""),
    ],
)
def test_a_mistake_is_one_line(condition: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Condition(condition, SELECTABLE, CLIPS.names)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os').system('touch owned') == 0",
        "text.__class__.__mro__ == 'a'",
        "(lambda: open('owned', 'w'))() == 'a'",
        "[open('owned', 'w') for _ in (1,)] == 'a'",
        "len(open('owned', 'w')) > 0",
        "quality.__init__.__globals__ is None",
        "exec('import os') is None",
        "{**text} == 'a'",
        "await_ == (yield_)",
    ],
)
def test_nothing_is_run(condition: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    with pytest.raises(ValueError):
        Condition(condition)
    import os

    assert os.listdir(".") == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("select.where=langage == 'en'", "did you mean language?"),
        ("select.where=true", "put the whole condition in quotes"),
        ("select.where=text == 'a: b'", "put the whole condition in quotes"),
        ("select.where=''", "is empty; write null"),
    ],
)
def test_a_mistake_in_the_configuration_names_its_key(setting: str, message: str) -> None:
    with pytest.raises(UserError, match="select.where") as caught:
        load_config(AnnotateConfig, None, [setting])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_condition_is_null() -> None:
    assert load_config(AnnotateConfig, None, ["select.where=null"]).select.condition() is None
    condition = load_config(AnnotateConfig, None, ["select.where=language in ('en', 'de')"]).select.condition()
    assert condition is not None and condition(clip())


def test_every_column_that_can_be_selected_by_is_one_of_the_index() -> None:
    assert set(SELECTABLE) <= set(CLIPS.names)
    assert {"expressiveness", "references", "position", "shard"}.isdisjoint(SELECTABLE)
