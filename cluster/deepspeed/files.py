"""The DeepSpeed configurations in `cluster/deepspeed/`, which the trainer runs with and the planner counts by.

A file has what belongs to the ZeRO stage; rows, precision and clipping come from the recipe.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from voxmill.core.errors import UserError

MACHINE_RANKS = 8
"""With more ranks than this, several machines are taken to be at work, over whose network reducing is slow."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    """What a recipe sets over the file of its stage; None: as the file has it, or the default by number of ranks.

    overlap_comm: gradients are reduced during the backward pass; by default under ZeRO 3 and, for ZeRO 1 and 2 without
    offload, with more than `MACHINE_RANKS` ranks. bucket_size: gradients reduced at once. hpz: ranks that hold a second
    copy of the weights among them (ZeRO++ hpZ); ZeRO 3 alone.
    """

    overlap_comm: bool | None = None
    bucket_size: int | None = None
    hpz: int | None = None

    def settings(self, section: dict[str, JsonValue], *, offload: bool, world: int) -> dict[str, JsonValue]:
        """The keys of `zero_optimization` that it adds to those of the file."""
        zero, added = section.get("stage"), dict[str, JsonValue]()
        if self.overlap_comm is not None:
            added["overlap_comm"] = self.overlap_comm
        elif "overlap_comm" not in section and zero in (1, 2):
            added["overlap_comm"] = not offload and world > MACHINE_RANKS
        if self.bucket_size is not None:
            added["reduce_bucket_size"] = self.bucket_size
            if zero in (1, 2):
                added["allgather_bucket_size"] = self.bucket_size
        if self.hpz is not None and zero == 3:
            added["zero_hpz_partition_size"] = self.hpz
        return added


AS_IN_FILES = Communication()


def read_deepspeed(
    zero: int, *, offload: bool, world: int = 1, communication: Communication = AS_IN_FILES
) -> dict[str, JsonValue]:
    """The content of that file with the recipe's settings, as DeepSpeed takes it."""
    values: dict[str, JsonValue] = json.loads(deepspeed_file(zero, offload=offload).read_text(encoding="utf-8"))
    section = values.get("zero_optimization")
    if isinstance(section, dict):
        section |= communication.settings(section, offload=offload, world=world)
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


def read_buckets(
    zero: int, *, offload: bool, world: int = 1, communication: Communication = AS_IN_FILES
) -> ZeroBuckets:
    """The buckets of a stage: the file's, with the recipe's settings.

    Raises:
        UserError: a size that cannot be, or no section `zero_optimization`.
    """
    values = read_deepspeed(zero, offload=offload, world=world, communication=communication)
    section = values.get("zero_optimization")
    try:
        return ZeroBuckets.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["zero_optimization", *(str(part) for part in first["loc"])])
        raise UserError(f"{deepspeed_file(zero, offload=offload)}: {key}: {first['msg']}") from None
