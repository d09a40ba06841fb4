"""Checkpoints: whole or not there; torn and altered ones are named and passed over."""

import json
import logging
from pathlib import Path

import pytest
import torch

from training.run.checkpoints import Checkpoints, damage, read_state, read_tensors

KINDS = ("weight", "exp_avg", "exp_avg_sq")


def save(folder: Path, steps: range, keep: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        tensors = {"a.weight": {kind: torch.full((3, 2), float(step)) for kind in KINDS}}
        checkpoints.save(step, tensors, {"count": step * 10})
    checkpoints.wait()
    return checkpoints


def test_what_was_saved_is_read_and_the_last_few_stay(tmp_path: Path) -> None:
    checkpoints = save(tmp_path, range(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-0000000{n}" for n in (2, 3, 4)]
    latest = checkpoints.latest()
    assert latest is not None and read_state(latest) == {"step": 4, "count": 40}
    ((name, values),) = read_tensors(latest)
    assert name == "a.weight" and all(torch.equal(values[kind], torch.full((3, 2), 4.0)) for kind in KINDS)


@pytest.mark.parametrize("file", ["weight.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["torn", "altered", "missing"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    tmp_path: Path, file: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = save(tmp_path, range(3))
    victim = tmp_path / "step-00000002" / file
    content = victim.read_bytes()
    if how == "missing":
        victim.unlink()
    else:
        victim.write_bytes(content[:-3] if how == "torn" else content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    if file == "manifest.json" and how == "altered":
        manifest = json.loads(content)
        victim.write_text(json.dumps(manifest | {"weight.safetensors": "0" * 64}))
    with caplog.at_level(logging.WARNING):
        latest = checkpoints.latest()
    assert latest is not None and latest.name == "step-00000001"
    assert "step-00000002" in caplog.text and damage(tmp_path / "step-00000002")


def test_an_attempt_is_no_checkpoint_and_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".step-00000007.abc").mkdir()
    checkpoints = Checkpoints(tmp_path, 3)
    assert checkpoints.latest() is None
    save(tmp_path, range(1))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000000"]


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, range(3))
    (tmp_path / "step-00000002" / "state.json").write_text("{}")
    latest = save(tmp_path, range(2, 3)).latest()
    assert latest is not None and latest.name == "step-00000002"


def test_a_full_disk_is_told_at_the_next_chance(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    checkpoints = Checkpoints(tmp_path / "checkpoints", 3)
    checkpoints.save(0, {}, {})
    with pytest.raises(OSError):
        checkpoints.wait()


def save_scored(folder: Path, scores: dict[int, float | None], *, keep: int, keep_best: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep, keep_best)
    for step, score in scores.items():
        checkpoints.save(step, {"a.weight": {kind: torch.zeros(1) for kind in KINDS}}, {}, score=score)
    checkpoints.wait()
    return checkpoints


def names(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def test_the_best_stay_beside_the_last(tmp_path: Path) -> None:
    scores = {0: None, 1: 3.0, 2: 1.0, 3: float("nan"), 4: 2.0, 5: 5.0, 6: None, 7: 4.0}
    checkpoints = save_scored(tmp_path, scores, keep=2, keep_best=2)
    assert names(tmp_path) == [2, 4, 6, 7]
    assert [path.name for path in checkpoints.best()] == ["step-00000002", "step-00000004"]
    latest = checkpoints.latest()
    assert latest is not None and latest.name == "step-00000007"
    # Another process knows the same order, from the checkpoints alone; equal scores: the newer.
    again = save_scored(tmp_path, {8: 2.0, 9: 9.0, 10: 9.0}, keep=2, keep_best=2)
    assert names(tmp_path) == [2, 8, 9, 10] and read_state(again.best()[0])["score"] == 1.0


def test_a_best_one_that_cannot_be_read_is_named_and_no_longer_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_scored(tmp_path, {0: 1.0, 1: 2.0, 2: 3.0}, keep=1, keep_best=2)
    (tmp_path / "step-00000000" / "state.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        save_scored(tmp_path, {3: 9.0}, keep=1, keep_best=2)
    assert names(tmp_path) == [1, 2, 3] and "step-00000000: has no score that can be read" in caplog.text
