"""A checkpoint of a run in training, `RUN/checkpoints/step-N`, read as the released folder that it is exported to.

It holds what was trained: the weights, or their average where the run has one, beside the optimizer's moments. The
configuration, the tokenizer and the AudioVAE are those of the run's `init`, which `RUN/recipe.json` names.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from voxmill.core.errors import UserError
from voxmill.core.sharded_tensors import INDEX, ShardedTensors
from voxmill.core.storage import read_whole, to_path

if TYPE_CHECKING:
    from torch import Tensor

    from voxmill.core.tensor_files import Shapes

RECIPE = "recipe.json"
"""In a run's folder: the recipe as it was last started, with absolute paths."""
KINDS = ("ema", "weight")
"""Of tensors by which a model computes; the first that was saved is read."""
_LONGEST = 100
"""So many runs begin one from another's checkpoint at most."""


class RunWeights:
    """The weights of a run's checkpoint, as a `WeightFile`.

    Args:
        folder: a local path or a URI.

    Raises:
        UserError: it is damaged, or holds adapters alone. OSError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        if _recipe_of(folder).get("lora") is not None:
            raise UserError(
                f"{folder}: holds adapters alone; name the merged folder that `voxmill export-checkpoint` writes for a "
                "run with run.merged=true"
            )
        self._saved = ShardedTensors(folder)
        self._kind = next(kind for kind in KINDS if kind in self._saved.kinds)

    def shapes(self) -> "Shapes":
        """Shape of every tensor by name."""
        return self._saved.shapes

    def items(self) -> "Iterator[tuple[str, Tensor]]":
        """(name, fp32 tensor on the CPU), read one by one."""
        return self._saved.whole(self._kind)


def is_run_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint of a run in training."""
    return (folder / INDEX).is_file()


def base_of(folder: str | Path) -> Path:
    """The folder with the configuration, tokenizer and AudioVAE of a checkpoint: itself unless it is one of a run.

    Raises:
        UserError: the run's `recipe.json` is not there, or cannot be read.
    """
    path = first = to_path(folder)
    for _ in range(_LONGEST):
        if not is_run_checkpoint(path):
            return path
        path = to_path(str(_recipe_of(path)["init"]))
    raise UserError(f"{first}: its run and that of {path} name each other as init; restore their {RECIPE}")


def _recipe_of(folder: Path) -> dict[str, object]:
    file = folder.parent.parent / RECIPE
    try:
        recipe = json.loads(read_whole(file))
    except OSError as error:
        raise UserError(
            f"{folder}: a checkpoint of a run, whose {file} cannot be read ({error.strerror or error}); name it where "
            "the run lies, or a folder that `voxmill export-checkpoint` wrote"
        ) from None
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}); start the run again") from None
    if not isinstance(recipe, dict) or not isinstance(recipe.get("init"), str):
        raise UserError(f"{file}: names no init; start the run again")
    return recipe
