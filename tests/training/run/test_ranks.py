"""Two ranks make a checkpoint together: it is there for both, or for neither."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.support.runs import ROOT, environment
from tests.support.s3_server import BUCKET, s3_server
from tests.training.run.test_checkpoints import checkpoints
from training.run.checkpoint_files import damage
from voxmill.core.sharded_tensors import ShardedTensors
from voxmill.core.storage import file_names, to_path, uri

RANK = """
import errno, sys
import torch
import torch.distributed as dist
from training.run.checkpoints import Checkpoints
from training.run.world import World
from voxmill.core.errors import JobError
from voxmill.core.sharded_tensors import Fragment
from voxmill.core.storage import to_path

rank, store, folder = int(sys.argv[1]), sys.argv[2], to_path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
made = Checkpoints(folder, dict[str, int], keep=2, world=World(rank, 2, torch.device("cpu")))
half = Fragment(name="a", shape=(2, 3), start=3 * rank, tensors={"weight": torch.full((3,), float(rank))})


def writing(error):
    def write(part):
        part.add_tensors([half], "model")
        if error is not None and part.rank == 1:
            raise error
    return write


for step, error in enumerate((None, OSError(errno.ENOSPC, "No space left on device"), ValueError("odd"), None)):
    try:
        made.save(step, writing(error), {"rank": rank})
        made.wait()
        said = made._unsaved[1].strerror if made._unsaved else "saved"
    except (ValueError, JobError) as raised:
        said = f"{type(raised).__name__}: {raised}"
    print(step, said)
print(made.latest().name, made.read(made.latest()).state)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("place", ["disk", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_checkpoint_is_there_for_all_ranks_or_for_none(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path / "scratch"))
    with s3_server() if place == "s3" else nullcontext():
        folder = to_path(f"s3://{BUCKET}/ranks") if place == "s3" else tmp_path / "checkpoints"
        words = [str(tmp_path / "store"), uri(folder)]
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(rank), *words],
                cwd=ROOT,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in (0, 1)
        ]
        said = [process.communicate(timeout=300) for process in ranks]
        assert [process.returncode for process in ranks] == [0, 0], said
        full, ours, theirs = "1 No space left on device", "2 ValueError: odd", "2 JobError: odd"
        last = ["3 saved", "step-00000003 {'rank': 0}"]
        assert said[0][0].splitlines() == ["0 saved", full, theirs, *last]
        assert said[1][0].splitlines() == ["0 saved", full, ours, *last]
        # The first rank alone reports, and nothing is left of what failed.
        assert said[0][1].count("step-00000001: not saved") == 1 and "not saved" not in said[1][1]
        assert file_names(folder) == {"step-00000000", "step-00000003"}
        newest = checkpoints(folder).paths()[0]
        assert not damage(newest)
        ((_, tensor),) = ShardedTensors(newest / "model").whole("weight")
        assert torch.equal(tensor, torch.tensor([[0.0] * 3, [1.0] * 3]))
        assert not list((tmp_path / "scratch").rglob("*.safetensors"))
