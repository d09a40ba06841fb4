"""Columns of corpora become labels, and what nobody knows travels along."""

import datetime
import json
import math

import pytest

from pipelines.inputs.entries import Entry
from pipelines.inputs.labels import MAX_EXTRA, BadLabelError, read_labels, with_labels
from voxmill.data.records import GivenLabels

HERE = Entry(path="a.wav", name="a.wav")


def test_columns_are_known_by_the_names_that_corpora_give_them() -> None:
    row: dict[str, object] = {
        "path": "a.wav",
        "client_id": 19,
        "sentence": "Hello.",
        "transcript": "hello",
        "locale": "de-CH",
        "license": "CC0",
        "sex": "m",
        "age": 34.0,
        "accents": "",
        "description": "a house",
    }
    entry = with_labels(HERE, row)
    assert (entry.speaker, entry.text, entry.language, entry.licence) == ("19", "Hello.", "de", "CC0")
    # Common Voice's recordings of a speaker are one session, of which they can be each other's references.
    assert entry.session == "19" and with_labels(HERE, row | {"session": "s"}).session == "s"
    assert with_labels(HERE, {"path": "a.wav", "speaker": "anna"}).session is None
    extra = '{"description":"a house","transcript":"hello"}'
    assert entry.labels == GivenLabels(gender="m", age="34", extra=extra)
    assert with_labels(HERE, {"path": "a.wav", "text": None}).labels is None


@pytest.mark.parametrize("row", [{"text": 3}, {"speaker": True}, {"gender": ["f"]}, {"language": 1}, {"caption": {}}])
def test_a_label_that_is_no_text_is_named(row: dict[str, object]) -> None:
    with pytest.raises(BadLabelError, match=f"'{next(iter(row))}' is not text"):
        read_labels(row)


def test_what_nobody_knows_is_kept_as_json_can() -> None:
    row: dict[str, object] = {
        "dnsmos": 3.29,
        "nan": math.nan,
        "picture": b"\x89PNG",
        "when": datetime.date(2026, 11, 27),
        "nested": {"list": [1, math.inf, "é"], "bytes": b"x"},
        "half": "\ud83d",
        "empty": "",
        "none": None,
    }
    labels = read_labels(row).labels
    assert labels is not None and labels.extra is not None
    labels.extra.encode("utf-8")
    assert json.loads(labels.extra.replace("\\ud83d", "?")) == {
        "dnsmos": 3.29,
        "when": "2026-11-27",
        "nested": {"list": [1, None, "é"], "bytes": None},
        "half": "?",
    }


def test_columns_that_are_too_long_are_left_out_and_named() -> None:
    entry = with_labels(HERE, {"embedding": [0.5] * MAX_EXTRA, "codes": "1" * MAX_EXTRA, "id": "x"})
    assert entry.labels == GivenLabels(extra='{"id":"x"}')
    assert [(one.kind, one.detail) for one in entry.label_warnings] == [
        ("labels_unreadable", "too long to keep: embedding, codes")
    ]


@pytest.mark.parametrize(
    ("row", "language", "warnings"),
    [
        ({"language": "zh", "dialect": "Sichuanese"}, "zh-sichuan", []),
        ({"language": "cmn", "dialect": "四川话"}, "zh-sichuan", []),
        ({"language": "Chinese", "subdialect": "Tianjin"}, "zh-tianjin", []),
        ({"dialect": "yue"}, "zh-yue", []),
        ({"language": "zh-x-henan"}, "zh-henan", []),
        ({"language": "zh-CN-liaoning"}, "zh-dongbei", []),
        ({"language": "yue", "dialect": "Hong Kong"}, "zh-yue", []),
        ({"language": "zh", "dialect": "Jiang-Huai"}, "zh", ["dialect_unknown"]),
        ({"language": "zh", "dialect": "Mandarin"}, "zh", []),
        ({"language": "zh", "dialect": "nan"}, "zh", []),  # a table's not-a-number
        ({"language": "zh", "dialect": ""}, "zh", []),
        ({"language": "en", "dialect": "Scottish"}, "en", []),
        ({"language": "en", "dialect": "Wu"}, "en", []),
        ({"dialect": "Scottish"}, None, []),
    ],
)
def test_a_dialect_of_chinese_is_a_language_with_a_tag_or_said_to_have_none(
    row: dict[str, object], language: str | None, warnings: list[str]
) -> None:
    entry = with_labels(HERE, row)
    assert (entry.language, [warning.kind for warning in entry.label_warnings]) == (language, warnings)
    given = row.get("dialect", row.get("subdialect"))
    assert (None if entry.labels is None else entry.labels.dialect) == (given or None) and not entry.refused


def test_a_kind_of_chinese_without_a_tag_ends_its_row_and_names_those_that_have_one() -> None:
    refused = with_labels(HERE, {"language": "zh-x-hakka"}).refused
    assert "zh-x-hakka" in refused and "zh-sichuan" in refused and "\n" not in refused
