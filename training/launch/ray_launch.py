"""A run under Ray Train: Ray starts the ranks, and starts them again where one fails; the run is that of torchrun.

Checkpoints are the run's own (`run.out`, a URI or on a mount that every node sees), not Ray Train's: they serve any
number of ranks and any launcher. A UserError or a JobError, which no restart can fix, ends the job at once.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from training.curriculum.loop import Run
from training.curriculum.plan.check import check, check_memory
from training.curriculum.recipe import Recipe
from training.launch.launch_config import LaunchConfig
from training.run.stop_signal import StopSignal
from training.run.world import join_world
from voxmill.core.errors import ExitStatus, JobError, UserError
from voxmill.core.local_ray import join_ray
from voxmill.core.storage import absolute, arrow_filesystem, is_remote

OTHERS_SECONDS = 10.0
"""How long a rank that ends with an error waits for the others to end, too, before it fails and Ray kills them."""


class RunCoordinator:
    """Passes a stop request from the driver to the ranks, and errors back: an actor that outlives every rank."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers, self._ended = num_workers, 0
        self._stop, self._all_ended = asyncio.Event(), asyncio.Event()
        self._error: Exception | None = None

    async def request_stop(self) -> None:
        """Asks the run to save and end."""
        self._stop.set()

    async def wait_for_stop(self) -> None:
        """Returns once the run is asked to stop."""
        await self._stop.wait()

    async def report_error(self, error: Exception) -> None:
        """Takes an error of a rank that no restart can fix; returns once every rank has reported one."""
        self._error = self._error or error
        self._ended += 1
        if self._ended >= self._num_workers:
            self._all_ended.set()
        await self._all_ended.wait()

    async def error(self) -> Exception | None:
        """The first error that was reported."""
        return self._error


@dataclass(frozen=True, slots=True)
class RankSettings:
    """Passed to each rank by Ray Train. `coordinator`: the actor's handle; `folder`: the driver's working directory."""

    recipe: Recipe
    coordinator: Any
    folder: Path


def run_on_ray(recipe: Recipe, launch: LaunchConfig) -> ExitStatus:
    """Runs the recipe in `launch.num_workers` ranks; returns the exit status of the run.

    Raises:
        UserError: the cluster has too little, a path that the other nodes cannot see, or what a rank raised.
        JobError: what a rank raised, or ranks failed more often than `max_failures`.
        KeyboardInterrupt: Ctrl-C; the ranks are ended as they stand.
    """
    # Set by Ray for the command of a submitted job, which runs in an uploaded copy of the working directory.
    is_relative = not is_remote(recipe.run.out) and not recipe.run.out.is_absolute()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and is_relative:
        raise UserError(
            f"run.out = {recipe.run.out}: would lie in the job's copy of the working directory and go with it; "
            "give an absolute path that every node sees"
        )
    # Ray Train would move each rank to a folder of its own, where relative paths name nothing.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    join_ray(log_to_driver=True)
    try:
        return _fit(recipe, launch)
    finally:
        # Ray's last output comes before the line about how the run ended.
        ray.shutdown()


def _fit(recipe: Recipe, launch: LaunchConfig) -> ExitStatus:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    use_gpu = _uses_gpu(launch, resources)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(RunCoordinator).options(num_cpus=0, scheduling_strategy=here)
    coordinator = actor.remote(launch.num_workers)
    gpu = {"GPU": 1.0} if use_gpu else {}
    # Any: Ray's type hints are those of its first Train API, in which a rank returned nothing.
    trainer_class: Any = TorchTrainer
    filesystem, place = arrow_filesystem(absolute(recipe.run.out / "ray"))
    trainer = trainer_class(
        _rank,
        train_loop_config={"settings": RankSettings(recipe, coordinator, Path.cwd())},
        scaling_config=ScalingConfig(
            num_workers=launch.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": launch.cpus_per_worker} | gpu,
        ),
        run_config=RunConfig(
            storage_path=place,
            storage_filesystem=filesystem if is_remote(recipe.run.out) else None,
            failure_config=FailureConfig(max_failures=launch.max_failures),
        ),
    )
    failure: TrainingFailedError | None = None
    status: ExitStatus | None = None
    with _forward_sigterm(coordinator):
        try:
            status = trainer.fit().return_value
        except TrainingFailedError as error:
            failure = error
        except SystemExit:
            # Ray Train's own answer to Ctrl-C, with status 0.
            raise KeyboardInterrupt from None
        reported: Exception | None = ray.get(coordinator.error.remote())
    if reported is not None:
        raise reported
    if failure is not None:
        raise JobError(f"training failed after {launch.max_failures} restarts: {_reason(failure)}") from failure
    if status is None:
        raise KeyboardInterrupt
    return status


def _uses_gpu(launch: LaunchConfig, resources: dict[str, float]) -> bool:
    """Whether ranks get GPUs.

    Args:
        resources: of the cluster, by Ray's names.

    Raises:
        UserError: the cluster has too little; Ray would wait for ever.
    """
    use_gpu = launch.use_gpu if launch.use_gpu is not None else resources.get("GPU", 0) > 0
    needed = {"CPU": launch.num_workers * launch.cpus_per_worker} | ({"GPU": launch.num_workers} if use_gpu else {})
    for name, amount in needed.items():
        available = resources.get(name, 0)
        if amount > available and not launch.autoscale:
            raise UserError(
                f"num_workers={launch.num_workers}: needs {amount:g} {name}s, the cluster has {available:g}; "
                "ask for fewer, add nodes, or set autoscale=true where it grows by itself"
            )
    return use_gpu


def _rank(config: dict[str, RankSettings]) -> ExitStatus | None:
    """One rank, in a thread of a Ray Train worker; returns the run's exit status."""
    settings = config["settings"]
    coordinator = settings.coordinator
    if ray.get(coordinator.error.remote()) is not None:
        # Ray restarted the ranks, as it does after any failure.
        return None
    try:
        if not settings.folder.is_dir():
            raise UserError(f"{settings.folder}: not there on a node of the cluster; submit with --working-dir")
        os.chdir(settings.folder)
        corpus, plan = check(settings.recipe, index="expect")
        stop = StopSignal()
        with join_world() as world:
            # Here, because the driver may be on a machine without a GPU.
            check_memory(settings.recipe, plan, world=world.size)
            run = Run(settings.recipe, corpus, world, stop)
            threading.Thread(target=_wait_for_stop, args=(coordinator, stop), daemon=True).start()
            return run()
    except (UserError, JobError) as error:
        try:
            ray.get(coordinator.report_error.remote(error), timeout=OTHERS_SECONDS)
        except GetTimeoutError:
            # The others have no error and wait for this rank: its failure makes Ray kill them.
            raise error from None
        return None


def _wait_for_stop(coordinator: Any, stop: StopSignal) -> None:
    ray.get(coordinator.wait_for_stop.remote())
    stop.set()


@contextmanager
def _forward_sigterm(coordinator: Any) -> Iterator[None]:
    """Inside, SIGTERM to this process makes all ranks save and stop at the end of their step."""
    asked = threading.Event()

    def forward() -> None:
        asked.wait()
        ray.get(coordinator.request_stop.remote())

    # A handler may interrupt Ray at any point; only the thread calls it.
    threading.Thread(target=forward, daemon=True).start()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reason(error: Exception) -> str:
    """The last line of Ray's message, which has the exception of the rank."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
