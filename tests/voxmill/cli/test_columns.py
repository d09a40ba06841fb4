"""Every column of the indexes is documented, and the pages on disk are those that the code generates."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from voxmill.cli import columns, keys
from voxmill.cli.columns import INDEXES, Index

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("index", INDEXES, ids=lambda index: index.file)
def test_every_column_has_a_meaning_and_an_origin(index: Index) -> None:
    listed = list(index.columns())
    assert [column.name for column in listed if not column.text or "\n" in column.text or not column.origin] == []
    inherited = {"clips.parquet": 0, "rejected.parquet": len(INDEXES[0].schema)}
    top = [column.name for column in listed if "." not in column.name]
    assert top == index.schema.names[inherited.get(index.file, 0) :]


def test_types_units_and_nulls_are_those_of_the_schema() -> None:
    listed = {column.name: column for column in INDEXES[0].columns()}
    assert (listed["quality.snr_db"].type, listed["quality.snr_db"].unit) == (str(pa.float64()), "dB")
    assert listed["words"].type == "list of struct" and listed["words[].start"].unit == "s"
    assert listed["prosody.f0_median_hz"].nullable and not listed["clip_id"].nullable
    assert listed["stages"].type == "list of int64" and listed["parents"].type == "list of string"


@pytest.mark.parametrize(("name", "page"), [("configuration.md", keys.page), ("dataset-format.md", columns.page)])
def test_a_generated_page_is_up_to_date(name: str, page: Callable[[], str]) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == page(), f"docs/{name} is out of date; run: make docs-pages"
