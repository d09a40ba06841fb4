"""Unit files and label files: what is written comes back, what is damaged or old is named in one line."""

import tarfile
from pathlib import Path

import pytest

from pipelines.units.store import read_unit, unit_path, write_unit
from voxmill.core.errors import JobError, UserError
from voxmill.data.records import (
    Candidate,
    Cost,
    SourceInfo,
    StageName,
    Window,
    WindowResult,
    WorkUnit,
    to_json_text,
)
from voxmill.data.shards import TarWriter

WINDOW = Window(
    recording_id="r",
    name="n",
    path="p",
    start_sample=0,
    end_sample=16000,
    sample_rate=16000,
    source=SourceInfo(session="s"),
)
CANDIDATE = Candidate(clip_id="c", start_sample=0, end_sample=8000, turn=0, cut="pause")
UNIT = WorkUnit(
    unit_id="ab12",
    results=(WindowResult(window=WINDOW, candidates=(CANDIDATE,)),),
    costs={StageName.DECODE: Cost(seconds=0.1)},
)


def test_a_unit_and_its_audio_come_back(tmp_path: Path) -> None:
    path = unit_path(tmp_path, UNIT.bucket, UNIT.unit_id)
    write_unit(path, UNIT, [("c", b"flac")])
    stored = read_unit(path)
    assert stored.unit == UNIT
    offset, size = stored.places["c"]
    assert path.read_bytes()[offset : offset + size] == b"flac"


@pytest.mark.parametrize("content", [b"no tar at all" * 100, b""])
def test_a_damaged_unit_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "u.tar").write_bytes(content)
    with pytest.raises(JobError, match=r"u\.tar"):
        read_unit(tmp_path / "u.tar")


def test_a_unit_of_another_content_is_named(tmp_path: Path) -> None:
    with TarWriter(tmp_path / "u.tar") as tar:
        tar.add("unit.json", b'{"format":3,"unit_id":1}')
    with pytest.raises(JobError, match=r"u\.tar: damaged"):
        read_unit(tmp_path / "u.tar")


def test_damaged_costs_are_named(tmp_path: Path) -> None:
    write_unit(tmp_path / "u.tar", UNIT)
    content = (tmp_path / "u.tar").read_bytes()
    (tmp_path / "u.tar").write_bytes(content.replace(b'"seconds":0.1', b'"seconds":"x"'))
    with pytest.raises(JobError, match=r"u\.tar: damaged"):
        read_unit(tmp_path / "u.tar")


def test_a_unit_of_the_older_format_is_answered_in_one_line(tmp_path: Path) -> None:
    with TarWriter(tmp_path / "u.tar") as tar:
        tar.add("unit.json", b'{"unit_id": "ab", "parts": []}')
    with pytest.raises(UserError, match=r"older voxmill; start again in an empty OUT$"):
        read_unit(tmp_path / "u.tar")


def test_a_unit_file_is_a_plain_tar(tmp_path: Path) -> None:
    write_unit(tmp_path / "u.tar", UNIT, [("c", b"flac")])
    with tarfile.open(tmp_path / "u.tar") as tar:
        assert tar.getnames() == ["unit.json", "c.flac", "costs.json"]


def test_a_unit_file_with_its_costs_among_the_labels_is_read(tmp_path: Path) -> None:
    """As they were written before costs had a member of their own."""
    with TarWriter(tmp_path / "u.tar") as tar:
        tar.add("unit.json", f'{{"format":3,{to_json_text(UNIT)[1:]}'.encode())
        tar.add("c.flac", b"flac")
    stored = read_unit(tmp_path / "u.tar")
    assert stored.unit == UNIT and list(stored.places) == ["c"]
