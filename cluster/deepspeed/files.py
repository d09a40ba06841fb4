"""The DeepSpeed configurations in `cluster/deepspeed/`, which the trainer runs with and the planner counts by.

A file has what belongs to the ZeRO stage; rows, precision and clipping come from the recipe.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

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


class ZeroBuckets(BaseModel):
    """Sizes in `zero_optimization`, in numbers of parameters, that memory is counted by.

    A file that lacks one has DeepSpeed's default, as here: a test holds them against `DeepSpeedZeroConfig`. Stage 0
    takes its bucket from no file; DeepSpeed's constant is the same number.
    """

    model_config = ConfigDict(frozen=True)  # other keys of the section are DeepSpeed's business

    stage: int
    reduce_bucket_size: int = Field(500_000_000, gt=0)
    overlap_comm: bool | None = None
    stage3_max_live_parameters: int = Field(1_000_000_000, ge=0)
    stage3_prefetch_bucket_size: int = Field(50_000_000, ge=0)

    @property
    def overlaps(self) -> bool:
        """Whether a second bucket fills while the first is on its way; by default under ZeRO 3."""
        return self.stage == 3 if self.overlap_comm is None else self.overlap_comm


def read_buckets(zero: int, *, offload: bool) -> ZeroBuckets:
    """The buckets in the file of a stage.

    Raises:
        UserError: a size that cannot be, or no section `zero_optimization`.
    """
    section = read_deepspeed(zero, offload=offload).get("zero_optimization")
    try:
        return ZeroBuckets.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["zero_optimization", *(str(part) for part in first["loc"])])
        raise UserError(f"{deepspeed_file(zero, offload=offload)}: {key}: {first['msg']}") from None
