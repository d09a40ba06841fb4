"""The DeepSpeed configurations in `cluster/deepspeed/`, which the trainer runs with and the planner counts by.

A file has what belongs to the ZeRO stage; rows, precision and clipping come from the recipe.
"""

import json
from pathlib import Path
from typing import Any

from voxmill.core.errors import UserError

FOLDER = Path(__file__).resolve().parent


def deepspeed_file(zero: int, *, offload: bool) -> Path:
    """The file of a stage, with the optimizer in CPU memory or not.

    Raises:
        UserError: no file, as under ZeRO 0 and 1 with offload.
    """
    path = FOLDER / f"zero{zero}{'_offload' if offload else ''}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise UserError(
            f"engine.zero = {zero}, engine.offload = {str(offload).lower()}: not possible; there are {known}"
        )
    return path


def read_deepspeed(zero: int, *, offload: bool) -> dict[str, Any]:
    """What that file says, as DeepSpeed takes it."""
    values: dict[str, Any] = json.loads(deepspeed_file(zero, offload=offload).read_text(encoding="utf-8"))
    return values
