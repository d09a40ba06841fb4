"""Texts that exist for a recording, in each format; what is wrong with one is named."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipelines.config import LabelConfig
from pipelines.inputs.bucket_rows import content_keys, find_repeats, plan_bucket, plan_rows
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.scan import Scan, ScanOptions, blocks, scan_entry
from pipelines.inputs.transcripts import parse
from pipelines.units.plan_files import BucketPlan
from voxmill.data.records import GivenPart
from voxmill.data.schemas import to_table


def planned(source: Path) -> BucketPlan:
    entries = list(read_inputs(str(source)))
    rows = plan_rows(0, entries, to_table([scan_entry(entry, ScanOptions()) for entry in entries], Scan))
    repeats = {repeat.order: repeat for repeat in find_repeats(content_keys(rows))}
    return plan_bucket(rows, repeats, LabelConfig(), 0)


def texts(plan: BucketPlan) -> dict[str, list[tuple[str, float | None, float | None]]]:
    """The given parts by the path of their recording."""
    names = {row.recording_id: row.path for row in plan.recordings}
    return {
        names[one.recording_id]: [(part.text, part.start, part.end) for part in one.parts]
        for one in plan.given
        if one.parts
    }


def warnings(plan: BucketPlan) -> dict[str, list[str]]:
    return {row.path: [warning.kind for warning in row.warnings] for row in plan.recordings if row.warnings}


def write(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 32000), 16000)


SRT = "1\n00:00:00,100 --> 00:00:00,900\n<i>Hello</i>\nthere.\n\n2\n00:00:01,000 --> 00:00:01,900\n{\\an8}Bye!\n"
VTT = "WEBVTT\n\nNOTE made\n\n00:00.100 --> 00:00.900 align:start\nHello there.\n\n00:01.000 --> 00:01.900\nBye!\n"
LONG_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2
            text = "h"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2
        points: size = 1
        points [1]:
            number = 0.5
            mark = "click"
    item [3]:
        class = "IntervalTier"
        name = "Narrator - words"
        xmin = 0
        xmax = 2
        intervals: size = 3
        intervals [1]:
            xmin = 0.1
            xmax = 0.9
            text = "Hello there."
        intervals [2]:
            xmin = 0.9
            xmax = 1
            text = ""
        intervals [3]:
            xmin = 1
            xmax = 1.9
            text = "Bye!"
"""
SHORT_GRID = """File type = "ooTextFile"
"TextGrid"

0
2
<exists>
1
"IntervalTier"
"said"
0
2
2
0.1
0.9
"Hello there."
1
1.9
"Bye!"
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.srt", SRT.encode()),
        ("a.srt", SRT.replace("\n", "\r\n").encode("utf-8-sig")),
        ("a.vtt", VTT.encode()),
        ("a.TextGrid", LONG_GRID.encode()),
        ("a.TextGrid", LONG_GRID.encode("utf-16")),
        ("a.TextGrid", SHORT_GRID.encode()),
        ("a.lab", b"#\n0.1 0.9 Hello there.\n0.9 1.0 sil\n1.0 1.9 Bye!\n"),
        ("a.lab", b"1000000 9000000 Hello there.\n10000000 19000000 Bye!\n"),
    ],
)
def test_parts_with_times_in_every_format(name: str, content: bytes) -> None:
    parts, wrong = parse(content, name)
    assert [part.text for part in parts] == ["Hello there.", "Bye!"] and wrong == ()
    assert [part.start for part in parts] == pytest.approx([0.1, 1.0])
    assert [part.end for part in parts] == pytest.approx([0.9, 1.9])


@pytest.mark.parametrize(
    ("name", "content", "kind", "detail"),
    [
        ("a.txt", b"caf\xe9", "text_unreadable", "a.txt: not UTF-8 (byte 3)"),
        ("a.txt", b"  \n", "text_empty", "a.txt: no words"),
        ("a.txt", b"a " * 10_000_001, "text_unreadable", "a.txt: more than 20 MB"),
        ("a.srt", b"", "text_empty", "a.srt: no words"),
        ("a.srt", b"Hello there.", "text_unreadable", "a.srt: holds no subtitles"),
        ("a.srt", b"1\n0:0:x --> 1\nHello", "text_unreadable", "a.srt: no times in '0:0:x --> 1'"),
        ("a.TextGrid", b"Hello there.", "text_unreadable", "a.TextGrid: a damaged TextGrid"),
        ("a.TextGrid", SHORT_GRID[:-20].encode(), "text_unreadable", "a.TextGrid: a damaged TextGrid"),
        ("a.lab", b"0.0 2.0 sil\n", "text_empty", "a.lab: no words"),
    ],
)
def test_a_text_that_cannot_be_used_is_named(name: str, content: bytes, kind: str, detail: str) -> None:
    parts, (warning,) = parse(content, name)
    assert parts == () and (warning.kind, warning.detail) == (kind, detail)


def test_segments_that_are_reversed_or_overlap_are_named() -> None:
    parts, wrong = parse(b"3.0 4.0 third\n0.0 2.0 first\n1.0 2.5 second\n6.0 5.0 reversed\n", "a.lab")
    assert [part.text for part in parts] == ["first", "second", "third"]
    assert [(one.kind, one.detail) for one in wrong] == [
        ("segment_reversed", "a.lab: 1 of 4, such as 6.0 to 5.0 s"),
        ("segments_overlap", "a.lab: 1 of 3, such as the one from 1 s on"),
    ]


def test_a_text_beside_a_recording_is_its_own(tmp_path: Path) -> None:
    for number, name in enumerate(("a.wav", "b.wav", "sub/c.d.flac", "bare.wav", "bad.wav")):
        write(tmp_path / name, number)
    (tmp_path / "a.txt").write_text("Hello there.\n")
    (tmp_path / "a.srt").write_text(SRT)
    (tmp_path / "b.vtt").write_text(VTT)
    (tmp_path / "sub" / "c.d.TextGrid").write_text(SHORT_GRID)
    (tmp_path / "bad.lab").write_bytes(b"\xff\xff")
    plan = planned(tmp_path)
    timed = [("Hello there.", 0.1, 0.9), ("Bye!", 1.0, 1.9)]
    assert texts(plan) == {"a.wav": [("Hello there.\n", None, None)], "b.wav": timed, "sub/c.d.flac": timed}
    assert warnings(plan) == {"bad.wav": ["text_unreadable"]}
    assert texts(planned(tmp_path / "*.wav")).keys() == {str(tmp_path / "a.wav"), str(tmp_path / "b.wav")}  # a pattern


def test_a_manifest_gives_texts_files_and_segments(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        write(tmp_path / f"{name}.wav", number)
    (tmp_path / "b.srt").write_text(SRT)
    lines: list[dict[str, object]] = [
        {"path": "a.wav", "text": "Hello."},
        {"path": "b.wav", "text_path": "b.srt"},
        {"path": "c.wav", "start": 0, "end": 1.0, "text": "one", "speaker": "s"},
        {"path": "c.wav", "start": 1.5, "end": 1.0, "text": "backwards"},
        {"path": "c.wav", "start": 1.0, "end": 2, "text": "two"},
        {"path": "d.wav", "text_path": "gone.txt"},
        {"path": "c.wav", "start": 1.5, "end": 2, "text": "later in the list"},
        {"path": "a.wav", "start": 1.0, "text": "no end"},
        {"path": "a.wav", "start": 1.0, "end": 2.0},
        {"path": "a.wav", "text_path": 3},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    plan = planned(tmp_path / "list.jsonl")
    assert texts(plan) == {
        "a.wav": [("Hello.", None, None)],
        "b.wav": [("Hello there.", 0.1, 0.9), ("Bye!", 1.0, 1.9)],
        "c.wav": [("one", 0.0, 1.0), ("two", 1.0, 2.0), ("later in the list", 1.5, 2.0)],
    }
    assert warnings(plan) == {"c.wav": ["segment_reversed", "segments_overlap"], "d.wav": ["text_unreadable"]}
    ends = {row.path: (row.reason, row.detail) for row in plan.recordings if row.state != "planned"}
    assert ends == {
        "a.wav (line 9)": ("duplicate_row", "line 9 repeats line 1"),
        "list.jsonl:8": ("malformed_row", "line 8: 'start' and 'end' are not both numbers of seconds"),
        "list.jsonl:10": ("malformed_row", "line 10: 'text_path' is not text"),
    }
    table = pa.Table.from_pylist([{"path": "a.wav", "start": 0.5, "end": 1.5, "text": text} for text in ("x", "y")])
    pq.write_table(table, tmp_path / "list.parquet")
    assert texts(planned(tmp_path / "list.parquet")) == {"a.wav": [("x", 0.5, 1.5), ("y", 0.5, 1.5)]}


def test_a_tar_has_texts_beside_its_recordings(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, (name, text) in enumerate((("x.txt", "Hello."), ("y.srt", SRT), ("z.lab", "2 1 reversed"))):
            write(tmp_path / "one.wav", number)
            (tmp_path / name).write_text(text)
            tar.add(tmp_path / "one.wav", f"{name[0]}.wav")
            tar.add(tmp_path / name, name)
    plan = planned(tmp_path / "a.tar")
    assert texts(plan) == {
        "a.tar/x.wav": [("Hello.", None, None)],
        "a.tar/y.wav": [("Hello there.", 0.1, 0.9), ("Bye!", 1.0, 1.9)],
    }
    assert warnings(plan) == {"a.tar/z.wav": ["segment_reversed"]}


def test_a_folder_of_kaldi_has_segments_texts_and_speakers(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        write(tmp_path / f"{name}.wav", number)
    (tmp_path / "wav.scp").write_text(f"rec-a {tmp_path}/a.wav\nrec-b b.wav\nrec-c c.wav\npiped sox x.wav -t wav - |\n")
    (tmp_path / "segments").write_text("u1 rec-a 0.0 0.9\nu2 rec-a 1.0 1.9\nu3 rec-c one two\n")
    (tmp_path / "text").write_text("u1 hello there\nu2 bye\nrec-b all of it\n")
    (tmp_path / "utt2spk").write_text("u1 anna\nu2 anna\nrec-b ben\n")
    plan = planned(tmp_path)
    assert texts(plan) == {
        "rec-a": [("hello there", 0.0, 0.9), ("bye", 1.0, 1.9)],
        "rec-b": [("all of it", None, None)],
    }
    speakers = {unit.results[0].window.name: unit.results[0].window.source.speaker for unit in plan.units}
    assert set(speakers.values()) <= {"anna", "ben"}
    ends = {row.path: row.detail for row in plan.recordings if row.state != "planned"}
    assert ends == {
        "rec-c": "segments: u3 rec-c one two",
        "piped": "wav.scp: a command, which is not run: sox x.wav -t wav - |",
    }
    assert GivenPart(text="bye", start=1.0, end=1.9, speaker="anna") in plan.given[0].parts + plan.given[1].parts


def test_names_that_are_no_text_and_relative_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.wav", 1)
    for name in (b"\xff.wav", b"\xff.txt"):
        (tmp_path / os.fsdecode(name)).write_bytes((tmp_path / "a.wav").read_bytes())
    (tmp_path / "a.txt").write_text("Hello.")
    monkeypatch.chdir(tmp_path)
    block = [entry for own in blocks(read_inputs(".")) for entry in own]
    monkeypatch.chdir("/")
    rows = plan_rows(0, block, to_table([scan_entry(entry, ScanOptions()) for entry in block], Scan))
    plan = plan_bucket(rows, {}, LabelConfig(), 0)
    assert texts(plan) == {"a.wav": [("Hello.", None, None)]}
    assert sorted(row.reason or "" for row in plan.recordings) == ["", "bad_name", "bad_name", "not_audio"]
