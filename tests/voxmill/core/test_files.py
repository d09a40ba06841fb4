"""A file or folder appears whole under its name, or not at all."""

import os
import stat
from pathlib import Path

import pytest

from voxmill.core.files import atomic_file, atomic_folder, atomic_path, sweep_temporaries, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes_replace_what_was_there_and_parents_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    write_atomically(path, "é")
    assert path.read_bytes() == "é".encode()
    write_atomically(path, b"2")
    assert path.read_bytes() == b"2" and names(path.parent) == ["a.json"]


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"half of the n")
        file.flush()
        assert path.read_bytes() == b"old"
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_a_writer_that_opens_files_itself_gets_a_name(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "b" / "a") as temporary:
        temporary.write_bytes(b"1")
        assert not (tmp_path / "b" / "a").exists()
    assert (tmp_path / "b" / "a").read_bytes() == b"1"
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "c"):
        pass


def test_a_folder_appears_whole_and_readable(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    with atomic_folder(folder) as temporary:
        (temporary / "inner").mkdir()
        handle = os.open(temporary / "inner" / "a", os.O_CREAT | os.O_WRONLY, 0o600)
        os.close(handle)
        assert names(tmp_path) == [temporary.name]
    assert names(tmp_path) == ["checkpoint"] and names(folder / "inner") == ["a"]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE((folder / "inner" / "a").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_folder_that_fails_is_removed_and_an_older_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(folder, replace=True) as temporary:
        (temporary / "a").write_text("new")
        raise ZeroDivisionError
    assert names(tmp_path) == ["checkpoint"] and (folder / "a").read_text() == "old"


def test_an_older_folder_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for text in ("old", "new"):
        with atomic_folder(folder, replace=True) as temporary:
            (temporary / text).write_text(text)
    assert names(folder) == ["new"]
    with pytest.raises(OSError, match="not empty"), atomic_folder(folder):
        pass
    assert names(tmp_path) == ["checkpoint"] and names(folder) == ["new"]


def test_a_killed_process_leaves_nothing_after_the_sweep(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / ".a.0123456789ab.tmp").touch()
    (tmp_path / ".b.0123456789ab.tmp").mkdir()
    (tmp_path / ".b.0123456789ab.tmp" / "c").touch()
    (below / ".d.0123456789ab.tmp").touch()
    (tmp_path / "kept.tmp").touch()
    sweep_temporaries(tmp_path)
    assert names(tmp_path) == ["below", "kept.tmp"] and len(names(below)) == 1
    sweep_temporaries(tmp_path, recursive=True)
    assert names(below) == []
