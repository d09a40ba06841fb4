"""Settings of a launch by Ray Train, given on the command line with a recipe; none of them changes the result."""

from pydantic import Field

from voxmill.core.config import Config, load_config
from voxmill.core.errors import UserError


class LaunchConfig(Config):
    """Ranks as Ray Train workers."""

    num_workers: int = Field(ge=1)
    """Ranks under Ray Train; the recipe's rows must be divisible by it."""
    use_gpu: bool | None = Field(None)
    """A GPU for each rank; null: where the cluster has any."""
    cpus_per_worker: float = Field(1.0, gt=0)
    """CPUs that each rank reserves."""
    max_failures: int = Field(3, ge=0)
    """How often the ranks are started again after one has failed."""
    autoscale: bool = Field(False)
    """The cluster grows by itself: wait for resources that are not there yet."""


def read_launch(overrides: list[str]) -> tuple[LaunchConfig | None, list[str]]:
    """(settings of the launch, overrides of the recipe); None where Ray Train is not asked for.

    Raises:
        UserError: a wrong value, or a setting of the launch without `num_workers`.
    """
    mine = [override for override in overrides if override.partition("=")[0] in LaunchConfig.model_fields]
    if not mine:
        return None, overrides
    if not any(override.startswith("num_workers=") for override in mine):
        raise UserError(f"{mine[0]} is for a launch by Ray Train; add num_workers=N, or leave it out")
    return load_config(LaunchConfig, None, mine), [override for override in overrides if override not in mine]
