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
