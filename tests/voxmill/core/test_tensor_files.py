"""Files of tensors are checked by name and shape before a module gets them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from voxmill.core.errors import UserError
from voxmill.core.tensor_files import load_state, open_weights, read_state


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("name", ["a.safetensors", "bare.pt", "below.pt"])
def test_every_kind_of_file_gives_the_same_module(tmp_path: Path, name: str) -> None:
    state = module().state_dict()
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "step": 3} if name == "below.pt" else state, path)
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == dict(open_weights(path).shapes())
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_state(other, path, what="a test")
    assert all(torch.equal(tensor, state[key]) for key, tensor in other.state_dict().items())


def test_counters_of_old_files_may_be_missing(tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in module().state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "a.pt")
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_state(other, tmp_path / "a.pt", what="a test")
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.bias": None}, "missing 0.bias"),
        ({"2.bias": torch.zeros(1)}, "unexpected 2.bias"),
        ({"0.bias": torch.zeros(5)}, r"0.bias is \[5\] instead of \[4\]"),
    ],
)
def test_other_tensors_are_refused_by_name(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    state = {key: tensor for key, tensor in (module().state_dict() | change).items() if tensor is not None}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"^--x .*a.pt: not the weights of Y: {message}; name the weights of Y$"):
        load_state(module(), tmp_path / "a.pt", setting="--x ", what="Y")


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        import os

        return os.mkdir, ("was-executed",)


def test_a_file_that_is_none_of_tensors_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"state_dict": _Code()}, tmp_path / "code.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    for name in ("text.pt", "text.safetensors", "code.pt", "list.pt", "none.pt", "none.safetensors"):
        with pytest.raises(UserError, match=f"^--x .*{name}: .*; name the weights of Y$") as caught:
            read_state(tmp_path / name, setting="--x ", what="Y")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "was-executed").exists()
