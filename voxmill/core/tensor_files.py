"""Files of tensors by name: safetensors, and pickles of nothing but tensors. Shapes are known before data is read."""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from voxmill.core.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
NAMED = 4
"""So many tensors are named in an error, the rest counted."""


class WeightFile(Protocol):
    """Tensors of a file, read one at a time where the format allows it."""

    def shapes(self) -> Shapes:
        """Shape of every tensor by name."""

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor on the CPU) in the file's order."""


def open_weights(path: Path) -> WeightFile:
    """Opens a `.safetensors` file, or another as what `torch.save` writes of a state dict or `{"state_dict": ...}`.

    Raises:
        UserError: damaged, or a pickle that holds anything besides tensors; names the file.
    """
    return _Safetensors(path) if path.suffix == ".safetensors" else _Pickled(path)


class _Safetensors:
    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self.file = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error}); copy it again") from None

    def shapes(self) -> Shapes:
        return {name: tuple(self.file.get_slice(name).get_shape()) for name in self.file.keys()}  # noqa: SIM118

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.file.keys():  # noqa: SIM118 (no mapping)
            yield name, self.file.get_tensor(name)


class _Pickled:
    def __init__(self, path: Path) -> None:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path}: refused, damaged or with code besides tensors ({str(error).partition(chr(10))[0]})"
            ) from None
        except (RuntimeError, EOFError):
            raise UserError(f"{path}: damaged or cut off; copy it again") from None
        loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
        if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
            raise UserError(f"{path}: holds no state dict; a released file is tensors by name")
        self.tensors = loaded

    def shapes(self) -> Shapes:
        return shapes(self.tensors)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.tensors.items()


def shapes(state: Mapping[str, Tensor]) -> Shapes:
    """Shape of every tensor by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def differences(found: Shapes, expected: Shapes) -> str:
    """What is missing, too many, or of another shape, in one line; empty where nothing is."""
    told = []
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    for kind, names in (("missing", missing), ("unexpected", extra)):
        if names:
            told.append(f"{kind} {_listed(names)}")
    other = [name for name, shape in expected.items() if found.get(name, shape) != shape]
    if other:
        told.append(_listed([f"{name} is {list(found[name])} instead of {list(expected[name])}" for name in other]))
    return "; ".join(told)


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
