"""`voxmill vacuum`: what nothing names goes, and nothing else ever does."""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.compact import compact
from pipelines.units.workspace import Workspace
from pipelines.vacuum import vacuum
from samples.fabricate import add_latents, rows, write_dataset
from tests.pipelines.test_compact import MEGABYTES, SESSIONS, clips_of, content
from voxmill.cli.app import run
from voxmill.core.errors import UserError
from voxmill.core.files import remove_files
from voxmill.core.machine.lease import Lease
from voxmill.data.dataset import Dataset
from voxmill.data.layout import read_index
from voxmill.data.snapshot import earlier_snapshots


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_latents(write_dataset(tmp_path_factory.mktemp("made"), rows(SESSIONS, 2), buckets=2))


@pytest.fixture
def out(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def removed(out: Path, *, keep: int = 0, dry_run: bool = False) -> set[str]:
    return {one.file.name for one in vacuum(out, keep=keep, dry_run=dry_run)}


def test_nothing_goes_of_a_dataset_that_is_in_use(out: Path) -> None:
    before = content(out)
    assert removed(out) == set()
    assert {name: text for name, text in content(out).items() if not name.endswith("lock")} == before


def test_old_shards_go_when_no_kept_state_names_them(out: Path) -> None:
    before, old = clips_of(out), set(read_index(out / "clips.parquet")["shard"].to_pylist())
    compact(out, MEGABYTES)
    assert removed(out, keep=1) == set()
    (earlier,) = earlier_snapshots(out)
    expected = old | {f"snapshots/{earlier.name}"}
    state = content(out)
    assert removed(out, dry_run=True) == expected
    assert {name: text for name, text in content(out).items() if not name.endswith("lock")} == {
        name: text for name, text in state.items() if not name.endswith("lock")
    }
    assert removed(out) == expected and clips_of(out) == before
    assert not any((out / name).exists() for name in expected)
    assert removed(out) == set()


def test_ended_anywhere_it_is_repeated(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = clips_of(out)
    compact(out, MEGABYTES)
    expected = removed(out, dry_run=True)

    def one_at_most(root: Path, names: Sequence[str]) -> None:
        remove_files(root, names[:1])
        if len(names) > 1:
            raise KeyboardInterrupt

    for left in range(len(expected), 0, -1):
        assert len(removed(out, dry_run=True)) == left
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.vacuum.remove_files", one_at_most)
            # The earlier state goes last, alone.
            with pytest.raises(KeyboardInterrupt) if left > 2 else contextlib.nullcontext():
                vacuum(out, keep=0, dry_run=False)
        assert clips_of(out) == before
        if left == 2:
            break
    assert removed(out) == set() and len(expected) == 7


def test_latents_that_no_row_names_go_with_their_results(out: Path) -> None:
    stray = out / "latents" / "0001" / "latents-0123456789abcdef01234567.tar"
    result = out / "work" / "latents" / "0001" / "0123456789abcdef01234567.json"
    for path in (stray, result):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")
    assert removed(out) == {path.relative_to(out).as_posix() for path in (stray, result)}
    # What an encode that was ended has made is found again by the next: the dataset is not encoded whole.
    stray.write_bytes(b"new")
    (out / "latents.parquet" / "0001.parquet").unlink()
    assert removed(out) == set()


def test_temporary_files_go_and_those_of_others_stay(out: Path) -> None:
    mine = [out / "shards" / "0000" / ".clips-000000.tar.0123456789ab.tmp", out / ".run.json.0123456789ab.tmp"]
    others = [
        out / "shards" / "0000" / "notes.txt",
        out / "shards" / "0000" / ".swap.tmp",
        out / "shards" / "backup.tar",
        out / "latents" / "old.safetensors",
        out / "clips.parquet" / "backup.parquet",
        out / "clips-extra.tar",
        out / "ünïcode 日本.txt",
    ]
    for path in (*mine, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert removed(out) == {path.relative_to(out).as_posix() for path in mine}
    assert all(path.exists() for path in others)


def test_links_are_never_followed_out_of_the_folder(out: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "clips-precious.tar").write_bytes(b"x")
    (out / "shards" / "linked").symlink_to(outside)
    (out / "shards" / "clips-linked.tar").symlink_to(outside / "clips-precious.tar")
    (out / "latents" / "0009").symlink_to(outside)
    assert removed(out) == set() and (outside / "clips-precious.tar").exists()
    shutil.move(out / "shards", tmp_path / "moved")
    (out / "shards").symlink_to(tmp_path / "moved")
    (tmp_path / "moved" / "clips-stray.tar").write_bytes(b"x")
    assert removed(out) == set() and (tmp_path / "moved" / "clips-stray.tar").exists()


@pytest.mark.parametrize("part", ["", "latents"])
def test_it_refuses_while_a_job_writes(out: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(out, part).hold():
        for command in ("vacuum", "compact"):
            assert run([command, str(out)]) == 2
            assert "another job writes to" in capsys.readouterr().err


def test_it_refuses_while_a_job_labels_its_share(out: Path) -> None:
    lease = out / "work" / "lease-1-of-4.json"
    with Lease(lease, str(out)), pytest.raises(UserError, match="another job writes to"):
        vacuum(out, keep=0, dry_run=False)
    assert not lease.exists() and removed(out) == set()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "dataset.json").unlink(), "has no dataset.json"),
        (lambda out: (out / "dataset.json").write_text("{"), "cannot be read"),
        (lambda out: (out / "clips.parquet" / "0001.parquet").write_bytes(b"torn"), "nothing is removed"),
        (lambda out: (out / "latents.parquet" / "0001.parquet").write_bytes(b"torn"), "nothing is removed"),
        (lambda out: shutil.rmtree(out / "clips.parquet"), "nothing is removed"),
        (lambda out: (out / "snapshots" / "000000-0123456789ab.json").write_text("?"), "cannot be read"),
    ],
)
def test_where_it_cannot_know_it_removes_nothing(out: Path, damage: object, message: str) -> None:
    (out / "snapshots").mkdir()
    stray = out / "shards" / "clips-stray.tar"
    stray.write_bytes(b"x")
    assert callable(damage)
    damage(out)
    with pytest.raises(UserError, match=message):
        vacuum(out, keep=1, dry_run=False)
    assert stray.exists()


def test_a_part_of_an_older_state_is_no_reason_to_remove_what_the_index_names(out: Path, made: Path) -> None:
    """A compaction that was ended before `dataset.json`: the parts name what it does not."""
    before = clips_of(out)
    compact(out, MEGABYTES)
    shutil.copy(made / "dataset.json", out / "dataset.json")
    shutil.rmtree(out / "snapshots")
    assert removed(out) == set() and clips_of(out) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(out: Path) -> None:
    (out / "work").chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        vacuum(out, keep=0, dry_run=False)


def test_a_reader_that_has_the_old_index_open_reads_on(out: Path) -> None:
    dataset = Dataset.open(out)
    clips = dataset.clips()
    compact(out, MEGABYTES)
    vacuum(out, keep=1, dry_run=False)
    assert all(len(dataset.audio(clip)[0]) for clip in clips)


def test_the_command_says_what_and_how_much(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "shards" / "clips-stray.tar").write_bytes(b"x" * 3_000_000)
    assert run(["vacuum", str(out), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "shards/clips-stray.tar",
        "shards: 1 files, 3.0 MB",
        "would remove 1 files, 3.0 MB",
    ]
    assert run(["vacuum", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "removed 1 files, 3.0 MB"
    assert run(["vacuum", str(out), "--keep", "-1"]) == 2
