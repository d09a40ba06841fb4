"""The DeepSpeed configurations in `cluster/deepspeed/`, which the trainer runs with and the planner counts by.

A file has what belongs to the ZeRO stage; rows, precision and clipping come from the recipe.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

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


def read_deepspeed(zero: int, *, offload: bool) -> dict[str, JsonValue]:
    """The content of that file, as DeepSpeed takes it."""
    values: dict[str, JsonValue] = json.loads(deepspeed_file(zero, offload=offload).read_text(encoding="utf-8"))
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroBuckets:
    """Sizes in `zero_optimization`, in numbers of parameters, that memory is counted by; 0 where a stage has none."""

    reduce_bucket_size: int = 0
    overlap_comm: bool = False
    stage3_max_live_parameters: int = 0
    stage3_prefetch_bucket_size: int = 0


def read_buckets(zero: int, *, offload: bool) -> ZeroBuckets:
    """The buckets in the file of a stage."""
    section = read_deepspeed(zero, offload=offload)["zero_optimization"]
    return TypeAdapter(ZeroBuckets).validate_python(section)
