"""What an export does to its folder: names, resuming, refusals, damage."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.exports.cues import SubtitleConfig
from pipelines.exports.export import ExportFormat, export_as
from pipelines.exports.plain import clip_file, one_field, relative_name, same_file
from samples.fabricate import rows, write_dataset
from tests.pipelines.exports.made_dataset import awkward_dataset, files_of
from voxmill.cli.app import run
from voxmill.core.errors import UserError
from voxmill.data.dataset import Dataset

FORMATS = [kind for kind in ExportFormat if kind is not ExportFormat.JSONL]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return awkward_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.wav", "a.srt"),
        ("shows/s1/a.b.flac", "shows/s1/a.b.srt"),
        ("v1.2", "v1.2.srt"),
        ("../../etc/passwd", "__/__/etc/passwd.srt"),
        ("/data/x.wav", "data/x.srt"),
        ("s3://bucket/x.wav", "s3_/bucket/x.srt"),
        ("C:\\audio\\x.wav", "C_/audio/x.srt"),
        (".hidden.wav", "_hidden.srt"),
        ("..", "__.srt"),
        ("a\nb\x00.wav", "a_b_.srt"),
        ("row (table.parquet:3)", "row (table.parquet_3).srt"),
        ("x.srt/y.wav", "x.srt_/y.srt"),
        ("你好.wav", "你好.srt"),
        ("", "_.srt"),
    ],
)
def test_names_stay_below_the_folder(path: str, name: str, tmp_path: Path) -> None:
    assert relative_name(path, ".srt") == name
    assert (tmp_path / name).resolve().is_relative_to(tmp_path.resolve())


def test_long_names_are_cut_between_characters() -> None:
    name = relative_name(f"{'語' * 200}.wav", ".ch0.TextGrid")
    assert len(name.encode()) < 200 and set(name.removesuffix(".ch0.TextGrid")) == {"語"}


def test_names_that_a_file_system_takes_for_one() -> None:
    assert same_file("Caf\u00e9/A.srt") == same_file("cafe\u0301/a.srt") != same_file("cafe/a.srt")


def test_fields_have_no_space_and_stay_different() -> None:
    texts = ["a b", "a_b", "a%20b", "a\u00a0b", "Zoë", "NA", "nan", '"', "#1", "a\tb", "\ud800"]
    fields = [one_field(text) for text in texts]
    assert len(set(fields)) == len(texts) and not any(set(field) & set(' \t\u00a0"#') for field in fields)


@pytest.mark.parametrize("clip_id", ["../x", "a/b", "", ".x", "a\n", "x" * 200])
def test_a_clip_id_that_leaves_the_folder_is_refused(clip_id: str) -> None:
    with pytest.raises(UserError, match="is no name of a file"):
        clip_file(clip_id)


def test_two_recordings_never_write_one_file(tmp_path: Path) -> None:
    """Same stem, same case-folded name, same path of two recordings, a channel against a name like it."""
    paths = ["x/a.wav", "x/a.mp3", "X/A.wav", "b.wav", "b.wav", "c.ch0.wav"]
    made: list[tuple[dict[str, Any], bytes]] = []
    for number, (path, (row, flac)) in enumerate(zip([*paths, "c.wav"], rows(("en-1", "it-1"), 4), strict=False)):
        channel = 0 if path == "c.wav" else None
        made.append((row | {"path": path, "recording_id": f"r{number}", "channel": channel}, flac))
    out = write_dataset(tmp_path / "dataset", made, buckets=4)
    assert export_as(out, tmp_path / "srt", ExportFormat.SRT) == {"clips": 7, "files": 7}
    names = sorted(files_of(tmp_path / "srt"))
    assert len({same_file(name) for name in names}) == 8
    assert all(len(name.rsplit("-", 1)[-1]) == len("0123456789.srt") for name in names if name != "export.json")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_ended_export_is_completed_and_has_the_same_bytes(out: Path, tmp_path: Path, kind: ExportFormat) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "folder"
    counts = export_as(out, folder, kind)
    expected = files_of(folder)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert export_as(out, folder, kind) == counts
    assert written == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    # As a kill leaves it: the last file is not there, another is half written under a temporary name.
    record = json.loads(expected["export.json"])
    (folder / "export.json").write_text(json.dumps(record | {"counts": None}))
    (folder / max(expected.keys() - {"export.json", "README.md"})).unlink()
    (folder / ".x.0123456789ab.tmp").write_bytes(b"half")
    assert export_as(out, folder, kind) == counts
    assert files_of(folder) == expected
    assert export_as(out, whole, kind) == counts
    if kind is not ExportFormat.LHOTSE:  # its manifests name the folder
        assert files_of(whole) == expected


def test_a_folder_that_holds_anything_else_is_refused(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        export_as(out, folder, ExportFormat.SRT)
    assert files_of(folder) == {"mine.txt": b"precious"}
    export_as(out, tmp_path / "srt", ExportFormat.SRT)
    with pytest.raises(UserError, match="holds an export --as srt"):
        export_as(out, tmp_path / "srt", ExportFormat.VTT)
    other = write_dataset(tmp_path / "other", rows(("en-1",), 1))
    with pytest.raises(UserError, match="of other settings or of the dataset as it was"):
        export_as(out, tmp_path / "srt", ExportFormat.SRT, SubtitleConfig(cue_seconds=7))
    with pytest.raises(UserError, match="of other settings or of the dataset as it was"):
        export_as(other, tmp_path / "srt", ExportFormat.SRT)
    (tmp_path / "srt" / "export.json").write_text("{}")
    with pytest.raises(UserError, match="is none of `voxmill export`"):
        export_as(out, tmp_path / "srt", ExportFormat.SRT)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_dataset_without_a_clip_is_named(tmp_path: Path, kind: ExportFormat) -> None:
    made = rows(("en-1",), 1)
    out = write_dataset(tmp_path / "dataset", made)
    from voxmill.data.schemas import CLIPS, write_index

    write_index(out / "clips.parquet", CLIPS, [])
    with pytest.raises(UserError, match="has no clip to export"):
        export_as(out, tmp_path / "folder", kind)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("kind", [ExportFormat.LHOTSE, ExportFormat.HF])
def test_damaged_audio_is_named_and_nothing_of_it_written(tmp_path: Path, kind: ExportFormat) -> None:
    out = write_dataset(tmp_path / "dataset", rows(("en-1",), 2))
    clip = Dataset.open(out).clips()[1]
    with open(out / clip.shard, "r+b") as file:
        file.seek(clip.offset + clip.size // 2)
        file.write(b"\x00\xff\x00\xff")
    with pytest.raises(UserError, match=f"clip {clip.clip_id}: its bytes are not those"):
        export_as(out, tmp_path / "folder", kind)
    assert not list((tmp_path / "folder").rglob("*.parquet")) and not list((tmp_path / "folder").glob("*.gz"))
    assert json.loads((tmp_path / "folder" / "export.json").read_text())["counts"] is None
    if kind is ExportFormat.HF:
        # Nothing but that file is there: another dataset may take the folder.
        other = write_dataset(tmp_path / "other", rows(("it-1",), 1))
        assert export_as(other, tmp_path / "folder", kind) == {"clips": 1, "files": 1}
    assert not [name for name in os.listdir(tmp_path / "folder") if name.endswith(".tmp")]


def test_the_command(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "srt"
    assert run(["export", str(out), str(folder), "--as", "srt"]) == 0
    assert capsys.readouterr().out.splitlines() == ["clips: 12", "files: 6", str(folder)]
    assert run(["export", str(out), str(folder), "--as", "ass"]) == 2
    assert "--as ass: unknown; one of jsonl, srt, vtt" in capsys.readouterr().err
    assert run(["export", str(out), str(tmp_path / "other"), "--as", "rttm", "descriptions=2"]) == 2
    assert "--as rttm has no keys" in capsys.readouterr().err
    assert run(["export", str(out), str(tmp_path / "cues"), "--as", "vtt", "cue_seconds=1"]) == 0
    assert "clips: 12" in capsys.readouterr().out
    assert run(["export", str(out), str(tmp_path / "other"), "--as", "vtt", "cue_second=1"]) == 2
    assert "did you mean 'cue_seconds'" in capsys.readouterr().err
    assert run(["export", str(out), str(folder), "--as", "hf"]) == 2
    assert "holds an export --as srt" in capsys.readouterr().err
