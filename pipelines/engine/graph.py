"""The Ray Data graph of `annotate`: decode, listen, separate, segment, transcribe, measure, write, voices.

Where the cluster has GPUs, every model is a pool of actors: separation, segmentation, transcription and voices take a
share of a GPU each, and CPU shares add up to one a worker. Without GPUs one pool runs all stages in one process a
worker: nothing waits for a GPU there, and eight processes would each import torch and fight for the same core.
"""

import warnings
from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipelines.config import AnnotateConfig
from pipelines.stages import models as stages
from pipelines.stages.base import Settings, Stage, UnitState
from pipelines.stages.voice_attributes import Voices
from pipelines.units.unit import Unit
from voxmill.core import malloc
from voxmill.core.local_ray import quiet_context

# Measured shares of a core on the sample recordings; Ray only uses them to place actors.
CPU_SHARES = {
    "Decode": 0.05,
    "Listen": 0.05,
    "Separate": 0.1,
    "Segment": 0.05,
    "Transcribe": 0.3,
    "Measure": 0.2,
    "Write": 0.05,
    "Voices": 0.2,
    "Worker": 1.0,
}
# A unit that takes its worker with it is tried so often; then its block is given up and `labelling` looks into it.
RETRIES = 2
# Units that may wait between two stages, a worker; what a killed driver loses is these.
WAITING_UNITS = 3
BYTES_PER_SAMPLE = 4


PLAN: tuple[tuple[type[Stage], bool], ...] = (
    (stages.Decode, False),
    (stages.Listen, False),
    (stages.Separate, True),
    (stages.Segment, True),
    (stages.Transcribe, True),
    (stages.Measure, False),
    (stages.Write, False),
    (Voices, True),
)


class Worker(Stage):
    """All stages one after another in one process; audio stays where it is."""

    title = "Worker"

    def load(self, settings: Settings) -> None:
        self.stages = [stage(str(self.out), settings) for stage, _ in PLAN]

    def run(self, unit: UnitState) -> None:
        for stage in self.stages:
            stage.run(unit)
        unit.release()


# Ray shows a stage by its class's name.
Worker.__name__ = "_".join(stage.title for stage, _ in PLAN)


def run_units(
    units: list[Unit], out: str, config: AnnotateConfig, workers: int, gpus: float, in_flight: int = 2
) -> Iterator[str]:
    """Runs the whole graph over units that are not done yet; see `run_stages`."""
    largest = max(sum(p.end_sample - p.start_sample for p in unit.parts) for unit in units) * BYTES_PER_SAMPLE
    pools = gpus > 0 if config.run.pools is None else config.run.pools
    plan = PLAN if pools else ((Worker, False),)
    if not pools:
        # A unit takes such a worker half a minute: one that waits in its queue is one that no idle worker can take,
        # and the longest first leave the least to wait for at the end.
        in_flight = 1
        units = sorted(units, key=lambda unit: -unit.seconds)
    return run_stages(plan, [unit.to_json() for unit in units], largest, out, config, workers, gpus, in_flight)


def run_stages(
    plan: Sequence[tuple[type[Stage], bool]],
    states: list[str],
    largest: int,
    out: str,
    config: AnnotateConfig,
    workers: int,
    gpus: float,
    in_flight: int = 2,
) -> Iterator[str]:
    """Runs stages over units and yields each one's final state (JSON) as it is done.

    A unit whose worker dies more than `RETRIES` times over it yields nothing.

    Args:
        plan: stages in order, and whether each takes a share of a GPU where there are any.
        states: a unit's state as JSON each.
        largest: bytes of audio of the largest unit.
        in_flight: units an actor is given at a time. With one, a dying worker takes no other unit with it.
    """
    import ray.data
    from ray.data import ExecutionResources

    context = quiet_context()
    context.max_errored_blocks = -1
    waiting = float(max(largest * WAITING_UNITS * workers, 64e6))
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=waiting)
    device = "cuda" if gpus else "cpu"
    share = config.run.gpu_share if gpus else 0.0
    empty = pa.array([b""], pa.large_binary())
    dataset: ray.data.Dataset = ray.data.from_arrow(
        [pa.table({"state": pa.array([state], pa.large_string()), "audio": empty}) for state in states]
    )
    settings = Settings(config.label, config.voices, config.run.threads, device)
    with warnings.catch_warnings():
        # The only way to bound retries; Ray 2.64 drops it, and the pinned range ends below that.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        for stage, on_gpu in plan:
            dataset = dataset.map_batches(
                stage,
                fn_constructor_kwargs={"out": out, "settings": settings},
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    size=min(workers, len(states)), max_tasks_in_flight_per_actor=in_flight
                ),
                num_cpus=CPU_SHARES[stage.title],
                num_gpus=share if on_gpu and share else None,
                max_restarts=-1,
                max_task_retries=RETRIES,
                runtime_env={"env_vars": malloc.KEEP_FREED_MEMORY_ENV},
            )
    for batch in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        assert isinstance(batch, pa.Table)
        yield from batch["state"].to_pylist()
