"""Every file below IN is an entry; what is a recording is found by opening it, and links are followed once."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.config import LabelConfig
from pipelines.inputs.bucket_rows import content_keys, find_repeats, plan_bucket, plan_rows
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.scan import Scan, ScanOptions, scan_entry
from voxmill.data.records import Recording
from voxmill.data.schemas import to_table


def planned(source: Path) -> dict[str, Recording]:
    """How every input of a folder ends before it is labelled, by path."""
    entries = list(read_inputs(str(source)))
    rows = plan_rows(0, entries, to_table([scan_entry(entry, ScanOptions()) for entry in entries], Scan))
    repeats = {repeat.order: repeat for repeat in find_repeats(content_keys(rows))}
    recordings = plan_bucket(rows, repeats, LabelConfig(), 0).recordings
    assert len({row.path for row in recordings}) == len(recordings) == len(entries)
    return {row.path: row for row in recordings}


def write(path: Path, number: int, kind: str = "WAV") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(number).normal(0, 0.1, 8000)
    soundfile.write(path, sound, 16000, format=kind)


def test_recordings_are_found_by_what_is_in_them(tmp_path: Path) -> None:
    for number, (name, kind) in enumerate(
        [("a.wav", "WAV"), ("no suffix", "FLAC"), ("speech.bin", "OGG"), (".hidden", "WAV"), ("b.MP3", "MP3")]
    ):
        write(tmp_path / name, number, kind)
    (tmp_path / "damaged.mkv").write_text("nothing")
    for name in ("notes.txt", "a.json", "sub/page.html", "_SUCCESS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name == "_SUCCESS" else "<html>of no sound</html>\n" * 400)
    (tmp_path / "noise.dat").write_bytes(np.random.default_rng(9).bytes(300_000))
    (tmp_path / "same.dat").symlink_to("notes.txt")
    os.mkfifo(tmp_path / "pipe")
    found = planned(tmp_path)
    by_state: dict[str, set[str]] = {}
    for path, row in found.items():
        by_state.setdefault(row.state, set()).add(path)
    assert by_state == {
        "planned": {"a.wav", "no suffix", "speech.bin", ".hidden", "b.MP3"},
        "unreadable": {"damaged.mkv"},
        "other": {"notes.txt", "a.json", "sub/page.html", "_SUCCESS", "noise.dat", "same.dat", "pipe"},
    }


def test_a_tar_in_a_folder_stands_for_what_is_in_it(tmp_path: Path) -> None:
    write(tmp_path / "parts" / "x.flac", 1, "FLAC")
    (tmp_path / "parts" / "x.json").write_text('{"language": "ENG", "text": "hello"}')
    (tmp_path / "parts" / "x.npy").write_bytes(b"\x93NUMPY" + bytes(2000))
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as tar:
        for name in ("x.flac", "x.json", "x.npy"):
            tar.add(tmp_path / "parts" / name, name)
    content = (tmp_path / "in" / "a.tar").read_bytes()
    (entry, other) = read_inputs(str(tmp_path / "in"))
    assert (entry.name, entry.language, entry.text, entry.claimed) == ("a.tar/x.flac", "en", "hello", True)
    assert (other.name, other.claimed) == ("a.tar/x.npy", False)
    (tmp_path / "in" / "a.tar").write_bytes(content[: len(content) - 11_000])
    found = planned(tmp_path / "in")
    assert found["a.tar/x.flac"].state == "planned"
    assert {path: row.reason for path, row in found.items() if row.state == "unreadable"} == {
        "a.tar": "decode_error",
        "a.tar/x.npy": "changed",
    }


def test_a_linked_folder_is_entered_once(tmp_path: Path) -> None:
    write(tmp_path / "in" / "day" / "a.wav", 1)
    write(tmp_path / "elsewhere" / "b.wav", 2)
    write(tmp_path / "elsewhere" / "deep" / "c.wav", 3)
    inside = tmp_path / "in"
    (inside / "again").symlink_to("day")
    (inside / "out").symlink_to("../elsewhere")
    (inside / "out2").symlink_to("../elsewhere/deep")
    (inside / "self").symlink_to(".")
    (inside / "up").symlink_to("..")
    (inside / "day" / "back").symlink_to("../../in")
    (tmp_path / "elsewhere" / "circle").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "home").symlink_to("../in/day")
    found = {path: (row.state, row.reason) for path, row in planned(inside).items()}
    assert found == {
        "day/a.wav": ("planned", None),
        "out/b.wav": ("planned", None),
        "out/deep/c.wav": ("planned", None),
        "again/": ("duplicate", "same_folder"),
        "out2/": ("duplicate", "same_folder"),
        "out/circle/": ("duplicate", "same_folder"),
        "out/home/": ("duplicate", "same_folder"),
        "self/": ("duplicate", "same_folder"),
        "day/back/": ("duplicate", "same_folder"),
        "up/": ("unreadable", "folder_loop"),
    }


@pytest.mark.parametrize("name", ["x.mkv", "x", "x.dat"])
def test_a_single_file_is_one_by_what_is_in_it(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, 1, "FLAC")
    (entry,) = read_inputs(str(tmp_path / name))
    assert entry.claimed and entry.name == name
