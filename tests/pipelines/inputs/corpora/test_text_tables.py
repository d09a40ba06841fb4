"""Tables of text, as LJSpeech, Common Voice and others write them, are read as csv reads them."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile

from pipelines.inputs.manifest import read_inputs
from tests.pipelines.inputs.corpora.made_corpora import (
    RATE,
    TURNS,
    clips,
    close,
    encoded,
    ends,
    planned,
)
from voxmill.core.errors import UserError


def test_ljspeech_is_what_its_table_and_folder_hold(tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    rows = [(f"LJ001-{n:04d}", f'He said "{said.text}"', said.text.lower()) for n, said in enumerate(TURNS)]
    for (name, _, _), said in zip(rows, TURNS, strict=True):
        soundfile.write(tmp_path / "wavs" / f"{name}.wav", said.audio, RATE)
    text = "\n".join("|".join(row) for row in rows)
    (tmp_path / "metadata.csv").write_text(f"{text}\nLJ001-0009|no file\nLJ001-0010\n", encoding="utf-8")
    with (tmp_path / "metadata.csv").open(newline="", encoding="utf-8") as file:
        peer = [row for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE) if len(row) == 3]
    plan = planned(tmp_path)
    found = clips(plan)
    assert len(found) == len(peer) == len(TURNS)
    for read, (name, text, normalised) in zip(sorted(found, key=lambda one: one.name), peer, strict=True):
        assert read.name == f"wavs/{name}.wav" and read.text == text
        assert read.given == {"id": name, "normalized_text": normalised}
        assert close(read.audio, soundfile.read(tmp_path / "wavs" / f"{name}.wav", dtype="float32")[0])
    assert ends(plan) == {"wavs/LJ001-0009.wav": "missing", "metadata.csv:6": "malformed_row"}
    entries = [entry for entry in read_inputs(str(tmp_path)) if entry.problem is None]
    assert {(entry.session, entry.speaker) for entry in entries} == {("LJ001", tmp_path.name)}


COMMON_VOICE = ("client_id", "path", "sentence_id", "sentence", "up_votes", "age", "gender", "accents", "locale")


def common_voice(folder: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = COMMON_VOICE) -> Path:
    (folder / "clips").mkdir(exist_ok=True)
    table = folder / "validated.tsv"
    table.write_text("\n".join("\t".join(row) for row in (header, *rows)) + "\n", encoding="utf-8")
    return table


def test_tables_of_common_voice_are_what_csv_reads(tmp_path: Path) -> None:
    rows = [
        (
            f"c{n % 2}",
            f"voice_en_{n}.mp3",
            f"s{n}",
            said.text,
            "2",
            "twenties",
            "female_feminine",
            "England",
            "en",
        )
        for n, said in enumerate(TURNS)
    ]
    rows[1] = (*rows[1][:3], '"' + TURNS[1].text, "2", "", "", "", "en")
    gone, short = ("c9", "gone.mp3", "s9", "x", "0", "", "", "", "en"), ("c9", "short.mp3")
    table = common_voice(tmp_path, [*rows, gone, short, rows[0]])
    for row, said in zip(rows, TURNS, strict=True):
        (tmp_path / "clips" / row[1]).write_bytes(encoded(said.audio, "MP3"))
    with table.open(encoding="utf-8", newline="") as file:
        peer = [*csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][: len(TURNS)]
    plan = planned(table)
    found = {read.name: read for read in clips(plan)}
    assert len(found) == len(TURNS)
    for listed in peer:
        read = found[f"clips/{listed['path']}"]
        assert close(read.audio, soundfile.read(tmp_path / "clips" / listed["path"], dtype="float32")[0])
        assert (read.text, read.speaker) == (listed["sentence"], listed["client_id"])
        known = {"gender": listed["gender"], "age": listed["age"], "accent": listed["accents"]}
        extra = {"sentence_id": listed["sentence_id"], "up_votes": listed["up_votes"]}
        assert read.given == {name: value for name, value in (known | extra).items() if value}
    assert ends(plan) == {
        "clips/gone.mp3": "missing",
        "validated.tsv:7": "malformed_row",
        "clips/voice_en_0.mp3 (line 8)": "duplicate_row",
    }
    assert {(entry.session, entry.speaker) for entry in read_inputs(str(table)) if entry.text} == {
        ("c0", "c0"),
        ("c1", "c1"),
        ("c9", "c9"),
    }
    with pytest.raises(UserError, match="name one of validated.tsv"):
        read_inputs(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "client_id\tsentence\nc\thello\n", "names no column 'path' but 'client_id', 'sentence'"),
        ("a.csv", "", "names no column 'path' but nothing"),
        ("a.csv", "path,text,text\na.wav,x,y\n", "names 'text' twice"),
        ("a.jsonl", '{"id": "r", "sources": [], "sampling_rate": 16000}\n', "lhotse's recordings alone"),
    ],
)
def test_a_table_that_names_no_recordings_is_the_users_mistake(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_inputs(str(tmp_path / name))


def test_rows_of_text_that_cannot_be_read_end_by_themselves(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", TURNS[0].audio, RATE)
    good = [b"\xef\xbb\xbfpath,text,start,end", b'a.wav,"one, two",0,1.0']
    bad = [b"a.wav,caf\xe9,1,2", b"a.wav,x,zero,1", b'b.wav,"open']
    (tmp_path / "a.csv").write_bytes(b"\r\n".join(good + bad))
    plan = planned(tmp_path / "a.csv")
    found = {row.path: (row.reason, row.detail) for row in plan.recordings if row.state != "planned"}
    assert found == {
        "a.csv:3": ("malformed_row", "line 3: not UTF-8"),
        "a.csv:4": ("malformed_row", "line 4: 'start' and 'end' are not both numbers of seconds"),
        "a.csv:5": ("malformed_row", "line 5: not readable (unexpected end of data)"),
    }
    assert [read.text for read in clips(plan)] == ["one, two"]


def test_a_table_of_windows_with_spaces_around_its_bars(tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    soundfile.write(tmp_path / "wavs" / "a 1.wav", TURNS[0].audio, RATE)
    (tmp_path / "metadata.csv").write_bytes("\ufeffa 1 | Hello. \r\n\r\n".encode())
    (read,) = clips(planned(tmp_path))
    assert (read.name, read.text, read.given) == ("wavs/a 1.wav", "Hello.", {"id": "a 1"})


def test_a_table_of_other_things_beside_recordings_is_none_of_them(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", TURNS[0].audio, RATE)
    (tmp_path / "metadata.csv").write_text("id|speaker|birthday\n1|anna|1990\n")
    plan = planned(tmp_path)
    assert [read.name for read in clips(plan)] == ["a.wav"]
    assert [row.path for row in plan.recordings if row.state == "other"] == ["metadata.csv"]


def test_rows_of_nemo_and_of_audio_folders(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", TURNS[0].audio, RATE)
    (tmp_path / "nemo.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "duration": 2.5, "text": "hello"}))
    (read,) = clips(planned(tmp_path / "nemo.jsonl"))
    assert (read.text, read.given) == ("hello", {"duration": 2.5})
    (tmp_path / "nemo.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text('"file_name","transcription","accent"\n"a.wav","Hello, there","Scottish"\n')
    (read,) = clips(planned(tmp_path))
    assert (read.text, read.given) == ("Hello, there", {"accent": "Scottish"})
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write(json.dumps({"path": "a.wav", "text": "x"}) + "\n" + json.dumps({"path": "b.wav"}) * 500)
    whole = (tmp_path / "rows.jsonl.gz").read_bytes()
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[:-20])
    assert set(ends(planned(tmp_path / "rows.jsonl.gz")).values()) == {"malformed_row"}
