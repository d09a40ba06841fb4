"""The ranks' agreement, of one rank: nothing is sent, so nothing has to be joined."""

import pytest
import torch
import torch.distributed as dist

from training.run.world import World


def test_one_rank_agrees_with_itself_without_a_collective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", None)
    world = World(0, 1, torch.device("cpu"))
    assert world.sums([1, 2.5]) == world.maxima([1, 2.5]) == [1.0, 2.5]
    assert world.means({"a": torch.tensor(0.1), "b": torch.tensor(2.0)}) == {"a": float(torch.tensor(0.1)), "b": 2.0}
    assert world.any(True) and not world.any(False)
    world.barrier()
