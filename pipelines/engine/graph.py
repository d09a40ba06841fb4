"""The Ray Data graph of `annotate`: decode, events, separation, segmentation, transcription, quality, write, voices.

Where the cluster has GPUs, every model is a pool of actors: separation, segmentation, transcription and voice
attributes take a share of a GPU each, and CPU shares add up to one a worker. Without GPUs one pool runs all stages in
one process a worker: nothing waits for a GPU there, and eight processes would each import torch and fight for the same
core.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.config import AnnotateConfig
from pipelines.engine.worker import Row, Worker, from_rows, no_audio, to_rows
from pipelines.stages.base import Stage, StageContext
from pipelines.stages.decode import Decode
from pipelines.stages.detect_events import DetectEvents
from pipelines.stages.measure import Measure
from pipelines.stages.segment import Segment
from pipelines.stages.separate import Separate
from pipelines.stages.transcribe import Transcribe
from pipelines.stages.voice_attributes import VoiceAttributes
from pipelines.stages.write import Write
from voxmill.core import malloc
from voxmill.core.local_ray import quiet_context
from voxmill.data.records import WorkUnit

STAGES: tuple[type[Stage], ...] = (
    Decode,
    DetectEvents,
    Separate,
    Segment,
    Transcribe,
    Measure,
    Write,
    VoiceAttributes,
)
# A unit that takes its worker with it is tried so often; then its block is given up and `runner` looks into it.
RETRIES = 2
# Units that may wait between two stages, a worker; what a killed driver loses is these.
WAITING_UNITS = 3
BYTES_PER_SAMPLE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Actors that run some stages in one process each. `cpu_share` and `gpu_share` are of one actor."""

    stages: tuple[type[Stage], ...]
    cpu_share: float
    gpu_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the graph may use: `workers` replicas of each pool, and how many GPUs there are."""

    workers: int
    gpus: float


def pools_of(stages: Sequence[type[Stage]], config: AnnotateConfig, cluster: Cluster) -> list[Pool]:
    """A pool a stage where there are GPUs or the configuration asks for it, otherwise one pool for all stages."""
    share = config.run.gpu_share if cluster.gpus else 0.0
    apart = cluster.gpus > 0 if config.run.pools is None else config.run.pools
    if apart or len(stages) == 1:
        return [
            Pool(stages=(stage,), cpu_share=stage.cpu_share, gpu_share=share if stage.uses_gpu else 0.0)
            for stage in stages
        ]
    return [Pool(stages=tuple(stages), cpu_share=1.0, gpu_share=share if any(s.uses_gpu for s in stages) else 0.0)]


def run_graph(
    units: Sequence[WorkUnit],
    stages: Sequence[type[Stage]],
    out: Path,
    config: AnnotateConfig,
    cluster: Cluster,
    in_flight: int = 2,
) -> Iterator[WorkUnit]:
    """Runs stages over units and yields each one as it ends, in any order.

    A unit whose worker dies more than `RETRIES` times over it yields nothing.

    Args:
        in_flight: units that an actor is given at a time. With one, a dying worker takes no other unit with it.
    """
    import ray.data
    from ray.data import ExecutionResources

    pools = pools_of(stages, config, cluster)
    if len(pools) == 1:
        # A unit takes such a worker half a minute: one that waits in its queue is one that no idle worker can take,
        # and the longest first leave the least to wait for at the end.
        in_flight = 1
        units = sorted(units, key=lambda unit: -unit.seconds)
    largest = max(
        sum(result.window.end_sample - result.window.start_sample for result in unit.results) for unit in units
    )
    data_context = quiet_context()
    data_context.max_errored_blocks = -1
    waiting = float(max(largest * BYTES_PER_SAMPLE * WAITING_UNITS * cluster.workers, 64e6))
    data_context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=waiting)
    context = StageContext(
        out=out,
        label=config.label,
        voice_attributes=config.voice_attributes,
        threads=config.run.threads,
        device="cuda" if cluster.gpus else "cpu",
    )
    rows = [to_rows([Row(unit, no_audio(unit))]) for unit in units]
    dataset: ray.data.Dataset = ray.data.from_arrow(rows)
    with warnings.catch_warnings():
        # The only way to bound retries; Ray 2.64 drops it, and the pinned range ends below that.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        for pool in pools:
            dataset = dataset.map_batches(
                _actor(pool),
                fn_constructor_kwargs={"stages": pool.stages, "context": context},
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    size=min(cluster.workers, len(units)), max_tasks_in_flight_per_actor=in_flight
                ),
                num_cpus=pool.cpu_share,
                num_gpus=pool.gpu_share or None,
                max_restarts=-1,
                max_task_retries=RETRIES,
                runtime_env={"env_vars": malloc.KEEP_FREED_MEMORY_ENV},
            )
    for batch in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        assert isinstance(batch, pa.Table)
        yield from (row.unit for row in from_rows(batch))


def _actor(pool: Pool) -> type[Worker]:
    """The worker under the name of its stages: Ray shows an actor by its class's name."""
    return type("_".join(stage.__name__ for stage in pool.stages), (Worker,), {})
