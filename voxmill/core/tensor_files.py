"""Files of tensors by name: safetensors, and pickles of nothing but tensors. Shapes are known before data is read."""

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from voxmill.core.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
NAMED = 4
"""So many tensors are named in an error, the rest counted."""
_BELOW = ("state_dict", "model")
"""Keys below which training scripts save the tensors by name."""
INDEX_SUFFIX = ".safetensors.index.json"
"""Of a file that names the tensors of several safetensors beside it, as Hugging Face's tools write large models."""
_COUNTER = ".num_batches_tracked"
"""Batch norms' counters of training steps, which old files lack and inference does not read."""


class WeightFile(Protocol):
    """Tensors of a file, read one at a time where the format allows it."""

    def shapes(self) -> Shapes:
        """Shape of every tensor by name."""

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor on the CPU) in the file's order."""


def open_weights(path: Path) -> WeightFile:
    """Opens a `.safetensors` file, the index of several, or another as what `torch.save` writes: tensors by name, or
    those below `state_dict` or `model`.

    Raises:
        UserError: not there, damaged, an index that does not fit its files, or a pickle that holds anything besides
            tensors; names the file.
    """
    try:
        if path.name.endswith(INDEX_SUFFIX):
            return _Indexed(path)
        return _Safetensors(path) if path.suffix == ".safetensors" else _Pickled(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); name a file of weights") from None


def read_state(path: Path, *, setting: str = "", what: str) -> dict[str, Tensor]:
    """Every tensor of a file by name, on the CPU; nothing in the file is executed.

    Args:
        setting: where the path was given, such as "--sim ", for the message. what: which weights are expected.

    Raises:
        UserError: as `open_weights`.
    """
    try:
        return dict(open_weights(path).items())
    except UserError as error:
        raise UserError(f"{setting}{error}; name the weights of {what}") from None


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, *, setting: str = "", what: str
) -> None:
    """Checks names and shapes of a file's tensors against a module's; batch norms' counters may be missing.

    Args:
        setting, what: as in `read_state`.

    Raises:
        UserError: names what is missing, unexpected or of another shape.
    """
    required = {name: tensor for name, tensor in expected.items() if name in state or not name.endswith(_COUNTER)}
    wrong = differences(shapes(state), shapes(required))
    if wrong:
        raise UserError(f"{setting}{path}: not the weights of {what}: {wrong}; name the weights of {what}")


def load_state(module: nn.Module, path: Path, *, setting: str = "", what: str) -> None:
    """Gives a module the tensors of a file that has all of them and no other; errors as `read_state`, `check_state`."""
    state, expected = read_state(path, setting=setting, what=what), module.state_dict()
    check_state(state, expected, path, setting=setting, what=what)
    module.load_state_dict(expected | state)


class _Safetensors:
    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self.file: Any = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error}); copy it again") from None

    def shapes(self) -> Shapes:
        return {name: tuple(self.file.get_slice(name).get_shape()) for name in self.file.keys()}  # noqa: SIM118

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.file.keys():  # noqa: SIM118 (no mapping)
            yield name, self.file.get_tensor(name)


class _Indexed:
    def __init__(self, index: Path) -> None:
        try:
            file_of: object = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{index}: has no weight_map of tensors to files; copy it again") from None
        if not isinstance(file_of, dict) or not all(isinstance(name, str) for name in file_of.values()):
            raise UserError(f"{index}: its weight_map does not name files; copy it again")
        self.files: list[_Safetensors] = []
        for name in sorted(set(file_of.values())):
            if name != Path(name).name or not name.endswith(".safetensors"):
                raise UserError(f"{index}: names {name!r}, which is no safetensors file beside it; copy it again")
            file = _Safetensors(index.with_name(name))
            stored = file.shapes()
            named = [tensor for tensor, place in file_of.items() if place == name]
            wrong = differences(stored, {tensor: stored.get(tensor, ()) for tensor in named})
            if wrong:
                raise UserError(f"{index.with_name(name)}: not what {index.name} says: {wrong}; copy both again")
            self.files.append(file)

    def shapes(self) -> Shapes:
        return {name: shape for file in self.files for name, shape in file.shapes().items()}

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for file in self.files:
            yield from file.items()


class _Pickled:
    def __init__(self, path: Path) -> None:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            reason = str(error).partition("\n")[0][:120]
            raise UserError(f"{path}: refused, damaged or with code besides tensors ({reason})") from None
        except (RuntimeError, EOFError, ValueError):
            raise UserError(f"{path}: damaged or cut off; copy it again") from None
        for key in _BELOW:
            if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
                loaded = loaded[key]
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


def differences(stored: Shapes, expected: Shapes) -> str:
    """Names that are missing, unexpected, or of another shape than `expected`, in one line; empty where none is."""
    parts = []
    missing = [name for name in expected if name not in stored]
    extra = [name for name in stored if name not in expected]
    for kind, names in (("missing", missing), ("unexpected", extra)):
        if names:
            parts.append(f"{kind} {_listed(names)}")
    other = [name for name, shape in expected.items() if stored.get(name, shape) != shape]
    if other:
        parts.append(_listed([f"{name} is {list(stored[name])} instead of {list(expected[name])}" for name in other]))
    return "; ".join(parts)


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
