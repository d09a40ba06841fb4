"""A local folder whose files are uploaded when they are new or were changed, and fetched by the next process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.s3_server import BUCKET, s3_server
from voxmill.core.errors import UserError
from voxmill.core.local_copies import WorkingFolder
from voxmill.core.storage import file_names, to_path


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture
def out(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path / "scratch"))
    return to_path(f"s3://{BUCKET}/{tmp_path.name}")


def test_what_is_new_or_changed_is_uploaded(out: Path) -> None:
    files = WorkingFolder(out)
    files.fetch()
    (files.local / "deep").mkdir()
    (files.local / "deep" / "a").write_text("one")
    (files.local / "lines").write_text("1\n")
    files.push()
    assert file_names(out) == {"deep", "lines"} and (out / "deep" / "a").read_text() == "one"
    # Only what changed is sent again.
    (out / "deep" / "a").write_text("by hand")
    with (files.local / "lines").open("a") as file:
        file.write("2\n")
    files.push()
    assert (out / "lines").read_text() == "1\n2\n" and (out / "deep" / "a").read_text() == "by hand"
    files.close()
    # The next process begins with what lies there, or with a part of it.
    (files.local / "left over").write_text("of a run that was killed")
    again = WorkingFolder(out)
    again.fetch()
    assert sorted(path.name for path in again.local.rglob("*")) == ["a", "deep", "lines"]
    again.fetch("lines", "nowhere")
    assert [path.name for path in again.local.iterdir()] == ["lines"]
    again.close()


def test_two_processes_never_work_with_one(out: Path) -> None:
    first = WorkingFolder(out)
    first.fetch()
    with pytest.raises(UserError, match="another process of this machine writes it"):
        WorkingFolder(out).fetch()
    first.close()
    WorkingFolder(out).fetch()


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    files = WorkingFolder(tmp_path)
    files.fetch()
    files.push()
    files.close()
    assert files.local == tmp_path and (tmp_path / "a").read_text() == "one"
