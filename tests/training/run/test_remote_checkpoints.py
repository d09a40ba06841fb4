"""Checkpoints in object storage: whole or not there, resumed from a copy on this machine."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.runs import ROOT, environment
from tests.support.s3_server import BUCKET, s3_server
from tests.training.run.test_checkpoints import Counted, checkpoints, filled_with
from training.run.checkpoint_files import damage
from voxmill.core.sharded_tensors import ShardedTensors
from voxmill.core.storage import file_names, to_path, uri


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture
def remote(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path / "scratch"))
    return to_path(f"s3://{BUCKET}/{tmp_path.name}/checkpoints")


def save(folder: Path, steps: range, keep: int = 2) -> None:
    made = checkpoints(folder, keep)
    for step in steps:
        made.save(step, lambda part, step=step: part.add_tensors(filled_with(step), "a"), Counted(step))  # type: ignore[misc]
    made.wait()


def test_what_was_saved_is_read_and_the_last_few_stay(remote: Path, tmp_path: Path) -> None:
    save(remote, range(4))
    assert file_names(remote) == {"step-00000002", "step-00000003"}
    made = checkpoints(remote, 2)
    latest = made.latest()
    assert latest is not None and latest.name == "step-00000003" and made.read(latest).state == Counted(3)
    ((_, tensor),) = ShardedTensors(latest / "a").whole("weight")
    assert torch.equal(tensor, torch.full((3, 2), 3.0))
    # Nothing is left on this machine of what was uploaded, and what was read was never copied here.
    left = [path for path in (tmp_path / "scratch").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not left


def test_the_same_step_again_replaces_it(remote: Path) -> None:
    save(remote, range(3))
    (remote / "step-00000002" / "state.json").write_text("{}")
    (remote / "step-00000002" / "of-before.safetensors").write_text("")
    save(remote, range(2, 3))
    latest = checkpoints(remote).latest()
    assert latest is not None and latest.name == "step-00000002"
    assert not (latest / "of-before.safetensors").exists()


@pytest.mark.parametrize("what", ["manifest.json", "state.json", "a/rank-00000.safetensors", "a/tensors.json"])
@pytest.mark.parametrize("how", ["missing", "torn"])
def test_a_torn_one_is_no_checkpoint(remote: Path, what: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    save(remote, range(2))
    victim = remote / "step-00000001" / what
    content = victim.read_bytes()
    victim.unlink()
    if how == "torn":
        victim.write_bytes(content[:-3])
    made = checkpoints(remote)
    latest = made.latest()
    assert latest is not None and latest.name == "step-00000000"
    assert "step-00000001: " in caplog.text and "skipped for the checkpoint before it" in caplog.text
    assert not damage(latest)


MANY_FILES = """
import sys
from tests.training.run.test_checkpoints import Counted, checkpoints
from voxmill.core.storage import to_path

made = checkpoints(to_path(sys.argv[1]))
made.save(1, lambda part: [part.add_text(f"{n:04d}", "x") for n in range(500)], Counted(1))
made.wait()
"""


def test_a_process_that_is_killed_while_it_uploads_leaves_no_checkpoint(remote: Path, tmp_path: Path) -> None:
    save(remote, range(1))
    command = [sys.executable, "-c", MANY_FILES, uri(remote)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment())
    deadline = time.monotonic() + 60
    while "step-00000001" not in file_names(remote) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert "manifest.json" not in file_names(remote / "step-00000001")
    latest = checkpoints(remote).latest()
    assert latest is not None and latest.name == "step-00000000"
    save(remote, range(1, 2))
    assert not damage(remote / "step-00000001") and "0000" not in file_names(remote / "step-00000001")
    # What the killed process was uploading is gone from this machine, too.
    assert not list((tmp_path / "scratch").rglob(".step-*"))


def test_a_manifest_that_leaves_the_checkpoint_is_refused(remote: Path) -> None:
    save(remote, range(1))
    path = remote / "step-00000000"
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace("a/rank", "../rank"))
    assert "outside" in damage(path) and checkpoints(remote).latest() is None
