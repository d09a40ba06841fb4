"""Names of devices."""

import pytest
import torch

from voxmill.core.errors import UserError
from voxmill.core.machine.devices import limit_threads, resolve_device


def test_auto_is_what_the_machine_has() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:64", ""])
def test_a_device_that_is_not_there_is_the_users_mistake(name: str) -> None:
    with pytest.raises(UserError, match="^--device = .*; use .*cpu"):
        resolve_device(name, setting="--device")


def test_threads_are_limited() -> None:
    before = torch.get_num_threads()
    try:
        limit_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        limit_threads(before)
