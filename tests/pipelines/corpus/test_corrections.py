"""Files of corrections as people and spreadsheets write them: a mistake is one line, the rest comes through."""

from pathlib import Path

import pytest

from pipelines.corpus.corrections.csv_file import (
    COLUMNS,
    Correction,
    csv_text,
    in_force,
    read_corrections,
    remember,
    spreadsheet_bytes,
)
from voxmill.core.errors import UserError

HEAD = "clip_id,text,drop,speaker,language\r\n"
HELLO = Correction(clip_id="c1", text="Hello, there.", speaker="anna")


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "corrections.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        HEAD + 'c1,"Hello, there.",,anna,\r\n',
        b"\xef\xbb\xbf\xef\xbb\xbf" + (HEAD + 'c1,"Hello, there.",,anna,\r\n').encode(),
        'clip_id;text;drop;speaker;language\nc1;"Hello, there.";;anna;\n',
        "sep=;\r\nclip_id;text;drop;speaker;language\r\nc1;Hello, there.;;anna;\r\n",
        "Clip_ID\ttext\tspeaker\t\nc1\tHello, there.\tanna\t\n",
        'clip_id,text,speaker\rc1," Hello,\rthere. ",anna\r',
        'clip_id,text,speaker\nc1,"\u202aHello, there.\u202c",\ufeffanna\n',
        'clip_id,text,speaker,language\nc1,"Hello, there.",anna\n,,,\n\n',
        'text,clip_id,speaker\n"Hello, there.",c1,\n,c1,anna\n"Hello, there.",c1,anna\nHi,c0\n'.replace("Hi,c0\n", ""),
    ],
    ids=["plain", "mark", "semicolons", "sep", "tabs", "old-mac", "copied", "short-rows", "rows-that-agree"],
)
def test_files_are_read_as_spreadsheets_write_them(tmp_path: Path, content: bytes | str) -> None:
    assert read_corrections(written(tmp_path, content)) == {"c1": HELLO}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column is called clip_id; begin the file with a line such as clip_id,text,drop,speaker,language"),
        ("clip_id,txt\nc1,x\n", "unknown column 'txt'; did you mean 'text'?"),
        ("clip_id,text,text\nc1,x,y\n", "two columns are called 'text'"),
        ("clip_id\nc1\n", "says nothing of clips"),
        (HEAD + "c1,Hello, there,,anna,,\n", "line 2 has 7 cells and line 1 has 5; put a text with a comma in quotes"),
        ("clip_id,text,,\nc1,x,y,\n", "line 2 has a cell below no name of a column"),
        (HEAD + "\n,Hello,,,\n", "line 3 has no clip_id"),
        (HEAD + "1.2E+15,Hello,,,\n", "line 2: '1.2E+15' is no clip_id"),
        (HEAD + "../c1,Hello,,,\n", "is no clip_id"),
        (HEAD + 'c1,"two\nlines",,,\nc1,other,,,\n', "lines 2 and 4 contradict each other on the text of c1"),
        (HEAD + "c1,,yes,,\nc1,,no,,\n", "lines 2 and 3 contradict each other on the drop of c1"),
        (HEAD + "c1,,maybe,,\n", "line 2: drop = 'maybe'; write yes, no or nothing"),
        (HEAD + "c1,,,,no tongue\n", "line 2: 'no tongue' is no language"),
        (HEAD + "c1,,,,und\n", "line 2: language = 'und' is not one language"),
        (HEAD + "c1, ... ,,,\n", "has no words; to drop the clip, write yes below drop"),
        (HEAD + "c1,a\x00b,,,\n", "line 2: text has a character that is none"),
        (HEAD + "c1,caf\ufffd,,,\n", "line 2: text has a character that is none"),
        ((HEAD + "c1,café,,,\n").encode("latin-1"), "line 2 is not UTF-8; save the file as `CSV UTF-8`"),
        ((HEAD + "c1,cafe,,,\n").encode("utf-16"), "line 1 is not UTF-8"),
        (HEAD + 'c1,"never closed,,,\nc2,x,,,\n', "is no CSV (unexpected end of data)"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_place(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError) as raised:
        read_corrections(path)
    said = str(raised.value)
    assert message in said and said.startswith(f"{path}: ") and "\n" not in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UserError, match="cannot be read .*; name a CSV file"):
            read_corrections(path)


HARMFUL = ("=HYPERLINK(1)", "+1 is more", "-- no", "@all of you", "'=quoted", "＝1+1", 'say "x"; then, go', "'tis true")


def test_what_is_written_is_no_formula_and_is_read_as_it_was(tmp_path: Path) -> None:
    rows = {f"c{n}": Correction(clip_id=f"c{n}", text=text, speaker=text) for n, text in enumerate(HARMFUL)}
    rows["z"] = Correction(clip_id="z", drop=False, language="zh-yue")
    text = csv_text(rows.values())
    assert not [
        cell for line in text.splitlines() for cell in line.split(",") if cell.strip('"').startswith(HARMFUL[0][0])
    ]
    assert all(f",'{harm}," in text for harm in HARMFUL[:4])
    assert read_corrections(written(tmp_path, spreadsheet_bytes(text))) == rows
    assert text.splitlines()[0].split(",") == list(COLUMNS)


def test_a_dataset_remembers_corrections_in_the_same_bytes(tmp_path: Path) -> None:
    rows = {"c2": Correction(clip_id="c2", drop=True), "c1": HELLO}
    remember(tmp_path, rows)
    content = (tmp_path / "corrections.csv").read_bytes()
    remember(tmp_path, dict(reversed(rows.items())))
    assert (tmp_path / "corrections.csv").read_bytes() == content and in_force(tmp_path) == rows
    remember(tmp_path, {})
    assert not list(tmp_path.iterdir()) and in_force(tmp_path) == {}
