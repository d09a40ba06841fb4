"""Reading the weight files of published speaker encoders: tensors only, and a wrong file is told by its first wrong key."""

import pickle  # for the name of the error that torch.load raises; nothing is unpickled
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxmill.core.errors import UserError


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """The state dict of a `torch.save` file, bare or below `model` (as UniSpeech saves it); nothing is executed.

    Args:
        what: which weights are asked for, such as `WavLM-large SV`; for the message.

    Raises:
        UserError: no such file, not a file of tensors.
    """
    try:
        loaded = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise UserError(f"--sim {path}: cannot be read ({error.strerror}); name the weights of {what}") from None
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"--sim {path}: not a file of tensors alone ({reason}); name the weights of {what}") from None
    state: Any = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict):
        raise UserError(f"--sim {path}: holds a {type(loaded).__name__}, no named tensors; name the weights of {what}")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def check_tensors(path: Path, what: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Whether `found` has exactly the names and shapes of `wanted`; batch norms' counters may be left out.

    Raises:
        UserError: names the first key that is missing, else the first that is unexpected, else the first of another shape.
    """
    end = f"name the weights of {what}"
    # Counters of training steps, which old files lack and nothing here reads.
    missing = [name for name in wanted if name not in found and not name.endswith(".num_batches_tracked")]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"--sim {path}: not the weights of {what}: {missing[0]} is missing{more}; {end}")
    extra = [name for name in found if name not in wanted]
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise UserError(f"--sim {path}: not the weights of {what}: {extra[0]} is unexpected{more}; {end}")
    for name, tensor in wanted.items():
        if name in found and found[name].shape != tensor.shape:
            shapes = f"{tuple(found[name].shape)}, not {tuple(tensor.shape)}"
            raise UserError(f"--sim {path}: not the weights of {what}: {name} has the shape {shapes}; {end}")
