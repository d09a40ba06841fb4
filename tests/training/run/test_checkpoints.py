"""Checkpoints: whole or not there; damaged ones are reported and skipped, and bad steps never replace good ones."""

import json
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pydantic import JsonValue

from training.run.checkpoint_files import damage
from training.run.checkpoints import ChangedSettings, Checkpoints, Saved, changed_settings
from voxmill.core.errors import JobError, UserError, status_and_line
from voxmill.core.sharded_tensors import Fragment, ShardedTensors

KINDS = ("weight", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Counted:
    count: int


def checkpoints(folder: Path, keep: int = 3, keep_best: int = 0) -> Checkpoints[Counted]:
    return Checkpoints(folder, Counted, keep=keep, keep_best=keep_best)


def filled_with(value: float) -> list[Fragment]:
    tensors = {kind: torch.full((6,), float(value)) for kind in KINDS}
    return [Fragment(name="a.weight", shape=(3, 2), start=0, tensors=tensors)]


def save(folder: Path, steps: range, keep: int = 3) -> Checkpoints[Counted]:
    made = checkpoints(folder, keep)
    for step in steps:
        tensors = filled_with(step)
        made.save(step, lambda part, tensors=tensors: part.add_tensors(tensors), Counted(step * 10))  # type: ignore[misc]
    made.wait()
    return made


def test_what_was_saved_is_read_and_the_last_few_stay(tmp_path: Path) -> None:
    made = save(tmp_path, range(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-0000000{n}" for n in (2, 3, 4)]
    latest = made.latest()
    assert latest is not None
    assert made.read(latest) == Saved(step=4, score=None, is_sound=True, state=Counted(40))
    for kind in KINDS:
        ((name, tensor),) = ShardedTensors(latest).whole(kind)
        assert name == "a.weight" and torch.equal(tensor, torch.full((3, 2), 4.0))


@pytest.mark.parametrize("file", ["rank-00000.safetensors", "tensors.json", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["torn", "altered", "missing"])
def test_a_damaged_one_is_reported_and_the_one_before_is_used(
    tmp_path: Path, file: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = save(tmp_path, range(3))
    victim = tmp_path / "step-00000002" / file
    content = victim.read_bytes()
    if how == "missing":
        victim.unlink()
    else:
        victim.write_bytes(content[:-3] if how == "torn" else content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    if file == "manifest.json" and how == "altered":
        manifest = json.loads(content)
        manifest["rank-00000.safetensors"]["sha256"] = "0" * 64
        victim.write_text(json.dumps(manifest))
    with caplog.at_level(logging.WARNING):
        latest = made.latest()
    assert latest is not None and latest.name == "step-00000001"
    assert "step-00000002" in caplog.text and damage(tmp_path / "step-00000002")


def test_one_with_a_manifest_that_names_nothing_is_damaged(tmp_path: Path) -> None:
    made = save(tmp_path, range(2))
    for content in ("{}", "[]", '{"state.json": 3}'):
        (tmp_path / "step-00000001" / "manifest.json").write_text(content)
        assert "not whole" in damage(tmp_path / "step-00000001")
        latest = made.latest()
        assert latest is not None and latest.name == "step-00000000"


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("is_sound", [True, False])
def test_what_is_written_after_a_damaged_newer_one_stays(tmp_path: Path, keep: int, is_sound: bool) -> None:
    """The run fell back to the one before a torn one and saves earlier than that one had been."""
    made = save(tmp_path, range(10, 31, 10), keep=3)
    torn = tmp_path / "step-00000030" / "rank-00000.safetensors"
    torn.write_bytes(torn.read_bytes()[:-3])
    latest = made.latest()
    assert latest is not None and latest.name == "step-00000020"
    made = checkpoints(tmp_path, keep)
    made.save(25, lambda part: part.add_tensors(filled_with(25.0)), Counted(25), is_sound=is_sound)
    made.wait()
    latest = made.latest()
    assert latest is not None and latest.name == "step-00000025" and not damage(latest)
    # The torn one takes no place among those that are kept.
    sound = [10, 20, 25] if is_sound else [10, 20]
    assert names(tmp_path) == sorted({25, *sound[-keep:]})


def test_an_unfinished_one_is_no_checkpoint_and_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-00000007.abc.tmp").mkdir()
    assert checkpoints(tmp_path).latest() is None
    save(tmp_path, range(1))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000000"]


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, range(3))
    (tmp_path / "step-00000002" / "state.json").write_text("{}")
    latest = save(tmp_path, range(2, 3)).latest()
    assert latest is not None and latest.name == "step-00000002"


def test_files_in_folders_are_in_the_manifest(tmp_path: Path) -> None:
    made = checkpoints(tmp_path)
    made.save(0, lambda part: part.add_tensors(filled_with(1.0), "training/part"), Counted(0))
    made.wait()
    (path,) = made.paths()
    assert not damage(path) and "training/part/rank-00000.safetensors" in json.loads(
        (path / "manifest.json").read_text()
    )
    (path / "training" / "part" / "rank-00000.safetensors").unlink()
    assert "not whole" in damage(path)


def test_a_failed_write_is_raised_at_the_next_call(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    made = checkpoints(tmp_path / "checkpoints")
    made.save(0, lambda part: None, Counted(0))
    with pytest.raises(OSError):
        made.wait()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Inside, the system lets no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def large(value: float) -> list[Fragment]:
    return [Fragment(name="a", shape=(99, 99), start=0, tensors={"weight": torch.full((9801,), value)})]


@pytest.mark.parametrize("is_known", [True, False])
def test_without_room_one_line_is_said_nothing_is_left_and_the_next_one_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_known: bool
) -> None:
    """Known: by how much will be written, so that nothing is begun. Otherwise the write itself fails, half way."""
    made = save(tmp_path, range(1))
    with room_for(10**9 if is_known else 20_000):
        num_bytes = 1 << 60 if is_known else 0
        made.save(1, lambda part: part.add_tensors(large(1.0)), Counted(1), num_bytes=num_bytes)
        made.wait()
        assert names(tmp_path) == [0]
        (line,) = [record.message for record in caplog.records]
        assert "step-00000001: not saved (" in line and "saves again when the next checkpoint is due" in line
        made.save(2, lambda part: part.add_tensors(large(1.0)), Counted(2), num_bytes=num_bytes)
        with pytest.raises(JobError) as caught:
            made.finish()
    assert names(tmp_path) == [0]
    status, said = status_and_line(caught.value)
    assert status == 1 and "step-00000002: not saved (" in said
    assert said.endswith("make room and run the same command again to resume from step-00000000")
    made.save(3, lambda part: part.add_tensors(large(3.0)), Counted(3), num_bytes=40_000)
    made.finish()
    assert names(tmp_path) == [0, 3] and not damage(tmp_path / "step-00000003")


def test_one_of_format_2_is_refused_in_one_line(tmp_path: Path) -> None:
    """Its manifest has no sizes, and is no damage."""
    made = save(tmp_path, range(1))
    (path,) = made.paths()
    (path / "state.json").write_text(json.dumps({"step": 0, "format": 2}))
    (path / "manifest.json").write_text(json.dumps({"state.json": "0" * 64}))
    with pytest.raises(UserError, match="another version.*start again in an empty OUT"):
        made.latest()


def test_one_of_an_older_version_is_refused_in_one_line(tmp_path: Path) -> None:
    made = save(tmp_path, range(1))
    (path,) = made.paths()
    (path / "state.json").write_text(json.dumps({"step": 0, "count": 3}))
    with pytest.raises(UserError, match="another version.*start again in an empty OUT"):
        made.read(path)


def test_a_torn_one_of_an_older_version_is_damaged_and_no_traceback(tmp_path: Path) -> None:
    old = tmp_path / "step-00000001" / "training"
    old.mkdir(parents=True)
    for content in ('{"step": 4, "ste', "[]"):
        (old / "state.json").write_text(content)
        assert "not whole" in damage(old.parent)
    assert checkpoints(tmp_path).latest() is None


def test_the_hint_leaves_out_the_weights_that_give_no_finite_loss(tmp_path: Path) -> None:
    made = save(tmp_path, range(4))
    made.save(4, lambda part: part.add_tensors(filled_with(4.0)), Counted(4))
    # The one that is still being written is named, too.
    assert made.hint_without(4) == (
        "lower optimizer.learning_rate, remove step-00000004, whose weights give none, "
        "and run the same command again to resume from step-00000003"
    )
    assert made.hint_without(5).startswith("lower optimizer.learning_rate and run the same command again")
    assert made.hint_without(1) == "lower optimizer.learning_rate and start again in an empty OUT"


def test_changed_settings_are_divided_into_those_that_may_change_and_others() -> None:
    old: dict[str, JsonValue] = {"optimizer": {"learning_rate": 1.0, "clip": None}, "seed": 0}
    new: dict[str, JsonValue] = {"optimizer": {"learning_rate": 2.0, "clip": None}, "seed": 1}
    changed = changed_settings(old, new, free=["optimizer.learning_rate"])
    assert changed == ChangedSettings(fixed=["seed: 0 -> 1"], free=["optimizer.learning_rate: 1.0 -> 2.0"])


def save_scored(folder: Path, scores: dict[int, float | None], *, keep: int, keep_best: int) -> Checkpoints[Counted]:
    made = checkpoints(folder, keep, keep_best)
    for step, score in scores.items():
        made.save(step, lambda part: part.add_tensors(filled_with(0.0)), Counted(0), score=score)
    made.wait()
    return made


def names(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def test_the_best_stay_beside_the_last(tmp_path: Path) -> None:
    scores = {0: None, 1: 3.0, 2: 1.0, 3: float("nan"), 4: 2.0, 5: 5.0, 6: None, 7: 4.0}
    made = save_scored(tmp_path, scores, keep=2, keep_best=2)
    assert names(tmp_path) == [2, 4, 6, 7]
    assert [path.name for path in made.best()] == ["step-00000002", "step-00000004"]
    latest = made.latest()
    assert latest is not None and latest.name == "step-00000007"
    # Another process finds the same order in the checkpoints alone; equal scores: the newer.
    again = save_scored(tmp_path, {8: 2.0, 9: 9.0, 10: 9.0}, keep=2, keep_best=2)
    assert names(tmp_path) == [2, 8, 9, 10] and again.read(again.best()[0]).score == 1.0


def test_a_best_one_that_cannot_be_read_is_reported_and_no_longer_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_scored(tmp_path, {0: 1.0, 1: 2.0, 2: 3.0}, keep=1, keep_best=2)
    (tmp_path / "step-00000000" / "state.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        save_scored(tmp_path, {3: 9.0}, keep=1, keep_best=2)
    assert names(tmp_path) == [1, 2, 3] and "step-00000000: its state cannot be read" in caplog.text


def test_those_saved_among_bad_steps_never_replace_sound_ones(tmp_path: Path) -> None:
    made = save(tmp_path, range(4), keep=2)
    for step in range(4, 9):
        made.save(step, lambda part: part.add_tensors(filled_with(0.0)), Counted(0), is_sound=False)
    made.wait()
    assert names(tmp_path) == [2, 3, 8]
    latest, sound = made.latest(), made.latest(sound=True)
    assert latest is not None and latest.name == "step-00000008"
    assert sound is not None and sound.name == "step-00000003"
    assert names(save(tmp_path, range(9, 11), keep=2).folder) == [9, 10]
