"""The Ray Data graph of `annotate`: work units stream from the plan's files through pools of actors.

Neither the driver nor the graph holds a list of units: one task beside the driver reads the plan a bucket at a time,
and Ray Data asks it for more as actors become free.
"""

import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.config import AnnotateConfig
from pipelines.engine.pools import Pool
from pipelines.engine.rows import Row, from_rows, no_audio, to_rows
from pipelines.engine.worker import Shift, Worker
from pipelines.stages.base import StageContext
from pipelines.units.probe import Probe
from voxmill.core.errors import JobError, UserError, status_and_line
from voxmill.core.local_ray import data_settings, on_node, this_node
from voxmill.core.machine import malloc
from voxmill.core.storage import as_failure
from voxmill.data.records import JobFailure, WorkUnit

if TYPE_CHECKING:
    from ray.data import Dataset

# A unit that takes its worker with it is tried so often; then its block is given up and `runner` looks into it.
RETRIES = 2
Units = Callable[[int], list[WorkUnit]]
"""The units of a bucket that are to be run, without results or audio; it is called on the driver's machine."""


def run_graph(
    buckets: Sequence[int],
    units: Units,
    pools: Sequence[Pool],
    *,
    out: Path,
    config: AnnotateConfig,
    run: str,
    probe: Probe | None = None,
) -> Iterator[Row]:
    """Runs units through the pools and yields each one as it ends, in any order, without its results.

    A unit whose worker dies more than `RETRIES` times over it yields nothing.

    Args:
        run: names this job in the attempts that workers record.
        probe: shows workers whether their machine shares OUT.

    Raises:
        RayError: workers cannot be started.
    """
    # Ray Data's advice on how pools scale goes there, too.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with data_settings() as settings:
        settings.max_errored_blocks = -1
        # A row is a block: a unit is what actors are given, and what comes back.
        settings.target_max_block_size = 1
        scaling = settings.autoscaling_config
        # A pool grows while all of its actors work and units wait; it gives none up before its input ends: an actor
        # that idles for a moment would load its models again.
        scaling.actor_pool_util_upscaling_threshold = 1.0
        scaling.actor_pool_util_downscaling_threshold = -1.0
        dataset = _dataset(buckets, units, pools, out=out, config=config, run=run, probe=probe)
        for batch in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            assert isinstance(batch, pa.Table)
            yield from from_rows(batch)
    # Ray ends an actor when nothing refers to it, and an executor lies in cycles of references: one whose process has
    # died and was started again would hold its CPU, for which the next graph then waits.
    del dataset
    gc.collect()


def _dataset(
    buckets: Sequence[int],
    units: Units,
    pools: Sequence[Pool],
    *,
    out: Path,
    config: AnnotateConfig,
    run: str,
    probe: Probe | None,
) -> "Dataset":
    import ray.data

    uses_gpu = any(pool.num_gpus for pool in pools)
    context = StageContext(
        out=out,
        label=config.label,
        voice_attributes=config.voice_attributes,
        threads=config.run.threads,
        device="cuda" if uses_gpu else "cpu",
    )
    with warnings.catch_warnings():
        # The only way to bound retries and to choose a node; Ray 2.64 drops it, and the pinned range ends below that.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        dataset = ray.data.from_items([{"plan": 0}]).map_batches(
            _feeder(tuple(buckets), units),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            scheduling_strategy=on_node(this_node()[0]),
        )
        for pool in pools:
            shift = Shift(run=run, stages=pool.stages, is_last=pool is pools[-1], on_gpu=pool.num_gpus > 0, probe=probe)
            dataset = dataset.map_batches(
                _actor(pool),
                fn_constructor_kwargs={"shift": shift, "context": context},
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    min_size=1,
                    initial_size=pool.initial,
                    max_size=pool.most,
                    max_tasks_in_flight_per_actor=pool.in_flight,
                    max_concurrent_calls_per_actor=pool.threads,
                    enable_true_multi_threading=pool.threads > 1,
                ),
                num_cpus=pool.num_cpus,
                num_gpus=pool.num_gpus or None,
                memory=pool.memory or None,
                max_restarts=-1,
                max_task_retries=RETRIES,
                runtime_env={"env_vars": malloc.KEEP_FREED_MEMORY_ENV},
            )
    return dataset


def _feeder(buckets: Sequence[int], units: Units) -> Callable[[pa.Table], Iterator[pa.Table]]:
    def feed(_: pa.Table) -> Iterator[pa.Table]:
        for bucket in buckets:
            try:
                listed = units(bucket)
            except Exception as error:
                unit = WorkUnit(unit_id="", bucket=bucket, results=(), costs={}, failure=_plan_failure(error))
                yield to_rows([Row(unit, (), 0.0)])
                return
            # The longest first leave the least to wait for at the end.
            for unit in sorted(listed, key=lambda unit: -unit.seconds):
                yield to_rows([Row(unit, no_audio(unit), unit.seconds)])

    return feed


def _plan_failure(error: Exception) -> JobFailure:
    """What keeps the plan from being read.

    Raises:
        Exception: `error`, where it is none of storage.
    """
    failure: Exception
    try:
        failure = as_failure(error)
    except JobError as damage:
        failure = damage
    return JobFailure(kind="user" if isinstance(failure, UserError) else "machine", message=status_and_line(failure)[1])


def _actor(pool: Pool) -> type[Worker]:
    """The worker under the name of its stages: Ray shows an actor by its class's name."""
    return type("_".join(stage.__name__ for stage in pool.stages), (Worker,), {})
