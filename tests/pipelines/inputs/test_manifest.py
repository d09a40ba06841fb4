"""What the user names becomes entries; what cannot be used is named by its line."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipelines.config import LabelConfig
from pipelines.inputs.bucket_rows import content_keys, find_repeats, plan_bucket, plan_rows
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.scan import Scan, ScanOptions, scan_entry
from voxmill.core.errors import UserError
from voxmill.data.schemas import to_table


def test_a_manifest_names_its_bad_rows_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "b.wav").write_bytes(b"x")
    lines = [
        json.dumps({"path": "a.wav", "speaker": "s", "text": "hello"}),
        "{not json",
        json.dumps({"speaker": "nobody"}),
        json.dumps(["a.wav"]),
        json.dumps({"path": "./a.wav"}),
        json.dumps({"path": "gone.wav"}),
        json.dumps({"path": "b.wav", "text": 3}),
        "",
        json.dumps({"path": "b.wav", "language": "en"}),
        json.dumps({"path": "b.wav"}),
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    entries = list(read_inputs(str(tmp_path / "list.jsonl")))
    scans = to_table([scan_entry(entry, ScanOptions()) for entry in entries], Scan)
    rows = plan_rows(0, entries, scans)
    repeats = {repeat.order: repeat for repeat in find_repeats(content_keys(rows))}
    recordings = plan_bucket(rows, repeats, LabelConfig(), 0).recordings
    reasons = {int(re.findall(r"line (\d+)", row.detail)[0]): row.reason for row in recordings if "line" in row.detail}
    assert reasons == {
        2: "malformed_row",
        3: "malformed_row",
        4: "malformed_row",
        5: "duplicate_row",
        6: "missing",
        7: "malformed_row",
        10: "duplicate_row",
    }
    good = [entry for entry in entries if entry.line in (1, 9)]
    assert [(entry.line, entry.speaker, entry.text, entry.language) for entry in good] == [
        (1, "s", "hello", None),
        (9, None, None, "en"),
    ]
    assert len({row.path for row in recordings}) == len(recordings) == 9


def test_a_language_is_normalised_or_ends_its_own_row(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(1600) * 0.1, 16000)
    soundfile.write(tmp_path / "b.wav", np.ones(1600) * 0.2, 16000)
    lines = [
        {"path": "a.wav", "language": "Elvish"},
        {"path": "a.wav", "language": "EN"},
        {"path": "b.wav", "language": "deu"},
        {"path": "gone.wav", "language": "xx"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    entries = list(read_inputs(str(tmp_path / "list.jsonl")))
    assert [entry.language for entry in entries] == [None, "en", "de", None]
    rows = plan_rows(0, entries, to_table([scan_entry(entry, ScanOptions()) for entry in entries], Scan))
    repeats = {repeat.order: repeat for repeat in find_repeats(content_keys(rows))}
    plan = plan_bucket(rows, repeats, LabelConfig(), 0)
    assert [(row.path, row.state, row.reason) for row in plan.recordings] == [
        ("a.wav", "planned", None),
        ("a.wav (line 1)", "unreadable", "unknown_language"),
        ("b.wav", "planned", None),
        ("gone.wav (line 4)", "unreadable", "unknown_language"),
    ]
    assert plan.recordings[1].detail.startswith("line 1: language 'Elvish' is no language")
    assert [result.window.source.language for unit in plan.units for result in unit.results] == ["en", "de"]


def test_a_parquet_manifest_reads_like_a_jsonl_one(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    pq.write_table(pa.table({"path": ["a.wav", None], "licence": ["CC0", "CC0"]}), tmp_path / "list.parquet")
    first, second = read_inputs(str(tmp_path / "list.parquet"))
    assert (first.licence, first.problem) == ("CC0", None)
    assert (second.problem, second.detail) == ("malformed_row", "line 2: no 'path'")


def test_a_glob_and_a_single_file(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = {Path(entry.path).name: entry.claimed for entry in read_inputs(str(tmp_path / "*"))}
    assert found == {"a.flac": True, "b.wav": True, "notes.txt": False}
    assert [entry.name for entry in read_inputs(str(tmp_path / "b.wav"))] == ["b.wav"]


@pytest.mark.parametrize("name", ["nowhere", "*.wav", "notes.txt", "empty"])
def test_an_input_that_is_none_is_the_users_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        read_inputs(str(tmp_path / name))
    assert len(str(caught.value).splitlines()) == 1


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_inputs(str(tmp_path / "list.parquet"))
