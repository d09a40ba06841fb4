"""Embedded weights are copied from where VOXMILL_WEIGHTS says, once a machine, whole and checked (a real S3 server)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from samples.s3_proxy import Answer, Request, s3_proxy
from tests.support.s3_server import BUCKET, s3_server
from voxmill.cli.app import run
from voxmill.core import assets, local_copies
from voxmill.core.assets import ASSETS, Asset, AssetFile, asset_path
from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_bytes
from voxmill.core.storage import to_path

CONTENT = bytes(range(256)) * 4096
"""A megabyte."""
TINY = Asset(
    name="tiny",
    source="a test",
    licence="MIT",
    files=(AssetFile(name="a.bin", sha256=sha256_bytes(CONTENT), members=()),),
)
PROCESS = """
import sys
from voxmill.core import assets, local_copies
local_copies.PIECE_BYTES, local_copies.PIECES = 1 << 16, 2
file = assets.AssetFile(name="a.bin", sha256=sys.argv[1], members=())
assets.ASSETS["tiny"] = assets.Asset(name="tiny", source="", licence="", files=(file,))
print(assets.asset_path("tiny"))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture
def source(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in object storage, with the one file that is needed; small pieces."""
    place = to_path(f"s3://{BUCKET}/{tmp_path.name}/weights of all")
    (place / "tiny" / "a.bin").write_bytes(CONTENT)
    monkeypatch.setenv("VOXMILL_WEIGHTS", str(place))
    monkeypatch.setenv("VOXMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(ASSETS, "tiny", TINY)
    monkeypatch.setattr(local_copies, "PIECE_BYTES", 1 << 16)
    monkeypatch.setattr(local_copies, "PIECES", 2)
    return place


def start() -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROCESS, TINY.files[0].sha256]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_copy_a_file_once(source: Path, tmp_path: Path) -> None:
    asked: list[Request] = []
    with s3_proxy(lambda request: asked.append(request) if request.method == "GET" else None):
        processes = [start(), start()]
        said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert {out.strip() for out, _ in said} == {str(tmp_path / "cache" / "tiny")}
    assert (tmp_path / "cache" / "tiny" / "a.bin").read_bytes() == CONTENT
    # Sixteen pieces, by one of the two.
    pieces = [request for request in asked if request.key.endswith("tiny/a.bin")]
    assert len(pieces) == 16


def test_a_copy_goes_on_where_a_killed_process_left_off(source: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def kill_in_the_middle(request: Request) -> Answer | None:
        if request.method == "GET" and request.key.endswith("a.bin"):
            asked.append(request.key)
            if len(asked) == 9 and (process := request.process()) is not None:
                process.kill()
        return None

    with s3_proxy(kill_in_the_middle):
        killed = start()
        killed.communicate(timeout=120)
    assert killed.returncode == -9 and not (tmp_path / "cache" / "tiny" / "a.bin").exists()
    before = len(asked)
    with s3_proxy(kill_in_the_middle):
        assert (asset_path("tiny") / "a.bin").read_bytes() == CONTENT
    # Eight pieces were on the disk; of them the last two are fetched again.
    assert 8 <= len(asked) - before <= 10
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_file_that_is_not_there_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "tiny" / "a.bin").unlink()
    with pytest.raises(UserError, match=r"weights of all/tiny/a\.bin: there is no such file; VOXMILL_WEIGHTS"):
        asset_path("tiny")
    assert run(["fetch"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "there is no such file" in lines[0]


def test_another_file_is_refused_and_the_right_one_taken_later(source: Path) -> None:
    (source / "tiny" / "a.bin").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(UserError, match=r"a\.bin has sha256 [0-9a-f]{64}, expected"):
        asset_path("tiny")
    (source / "tiny" / "a.bin").write_bytes(CONTENT)
    assert (asset_path("tiny") / "a.bin").read_bytes() == CONTENT


def test_a_folder_of_this_machine_is_a_source_too(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared" / "tiny").mkdir(parents=True)
    (tmp_path / "shared" / "tiny" / "a.bin").write_bytes(CONTENT)
    for place in (str(tmp_path / "shared"), f"file://{tmp_path}/shared"):
        monkeypatch.setenv("VOXMILL_WEIGHTS", place)
        monkeypatch.setenv("VOXMILL_CACHE", str(tmp_path / f"cache-{place[:4]}"))
        assert (asset_path("tiny") / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "variable, value, message",
    [
        ("VOXMILL_WEIGHTS", "foo://bucket/x", "unknown scheme 'foo'"),
        ("VOXMILL_CACHE", "s3://bucket/x", "own disk"),
    ],
)
def test_places_that_cannot_be_are_refused(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        assets.asset_path("tiny")
    assert not os.listdir(tmp_path)
