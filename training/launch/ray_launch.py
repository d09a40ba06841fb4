"""A run under Ray Train: Ray starts the ranks, and starts them again where one fails; the run is that of torchrun.

Checkpoints are the run's own (`run.out`, on storage that every node sees), not Ray Train's: they serve any number of
ranks and any launcher. What no restart mends, a mistake of the user or a JobError, ends the job at once.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from training.curriculum.check import check
from training.curriculum.engine import join_world
from training.curriculum.loop import Run
from training.curriculum.recipe import Recipe
from training.launch.launch_config import LaunchConfig
from voxmill.core.errors import JobError, UserError
from voxmill.core.local_ray import join_ray

OTHERS_SECONDS = 10.0
"""A rank that ends with an error waits so long for the others to end, too, before it fails and has them killed."""


class Board:
    """What the driver tells the ranks and they tell it; an actor beside the driver, which outlives every rank."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers, self._ended = num_workers, 0
        self._stop, self._all_ended = asyncio.Event(), asyncio.Event()
        self._error: Exception | None = None

    async def stop(self) -> None:
        """The run is to save and end."""
        self._stop.set()

    async def stopped(self) -> None:
        """Returns once it is."""
        await self._stop.wait()

    async def end(self, error: Exception) -> None:
        """A rank met what no restart mends; returns once every rank did."""
        self._error = self._error or error
        self._ended += 1
        if self._ended >= self._num_workers:
            self._all_ended.set()
        await self._all_ended.wait()

    async def error(self) -> Exception | None:
        """What was met."""
        return self._error


def run_on_ray(recipe: Recipe, launch: LaunchConfig) -> int:
    """Runs the recipe in `launch.num_workers` ranks; returns the exit status of the run.

    Raises:
        UserError: the cluster has too little, a path that the other nodes cannot see, or what a rank raised.
        JobError: what a rank raised, or ranks failed more often than `max_failures`.
        KeyboardInterrupt: Ctrl-C; the ranks are ended as they stand.
    """
    # Set by Ray for the command of a submitted job, which runs in an uploaded copy of the working directory.
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not recipe.run.out.is_absolute():
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
        # What Ray still has to say comes before the line on how it ended.
        ray.shutdown()


def _fit(recipe: Recipe, launch: LaunchConfig) -> int:
    use_gpu = _fitting(launch, ray.cluster_resources())
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote(launch.num_workers)
    gpu = {"GPU": 1.0} if use_gpu else {}
    # Any: the types that Ray shows are those of its first Train API, which returned nothing from a rank.
    start: Any = TorchTrainer
    trainer = start(
        _rank,
        train_loop_config={"recipe": recipe, "board": board, "folder": os.getcwd()},
        scaling_config=ScalingConfig(
            num_workers=launch.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": launch.cpus_per_worker} | gpu,
        ),
        run_config=RunConfig(
            storage_path=str((recipe.run.out / "ray").resolve()),
            failure_config=FailureConfig(max_failures=launch.max_failures),
        ),
    )
    failure: TrainingFailedError | None = None
    status: int | None = None
    with _sigterm_reaches(board):
        try:
            status = trainer.fit().return_value
        except TrainingFailedError as error:
            failure = error
        except SystemExit:
            # Ray Train's own answer to Ctrl-C, with status 0.
            raise KeyboardInterrupt from None
        met: Exception | None = ray.get(board.error.remote())
    if met is not None:
        raise met
    if failure is not None:
        raise JobError(f"training failed after {launch.max_failures} new starts: {_reason(failure)}") from failure
    if status is None:
        raise KeyboardInterrupt
    return status


def _fitting(launch: LaunchConfig, there: dict[str, float]) -> bool:
    """Whether ranks get GPUs; refuses what the cluster cannot hold, for which Ray would wait for ever."""
    use_gpu = launch.use_gpu if launch.use_gpu is not None else there.get("GPU", 0) > 0
    needed = {"CPU": launch.num_workers * launch.cpus_per_worker} | ({"GPU": launch.num_workers} if use_gpu else {})
    for name, amount in needed.items():
        if amount > there.get(name, 0) and not launch.autoscale:
            raise UserError(
                f"num_workers={launch.num_workers}: needs {amount:g} {name}s, the cluster has {there.get(name, 0):g}; "
                "ask for fewer, add nodes, or say autoscale=true where it grows by itself"
            )
    return use_gpu


def _rank(settings: dict[str, Any]) -> int | None:
    """One rank, in a thread of a Ray Train worker; returns the run's exit status."""
    recipe, board, folder = settings["recipe"], settings["board"], Path(settings["folder"])
    if ray.get(board.error.remote()) is not None:
        # Ray started the ranks again, as it does after any failure.
        return None
    try:
        if not folder.is_dir():
            raise UserError(f"{folder}: not there on a node of the cluster; submit with --working-dir")
        os.chdir(folder)
        corpus, _ = check(recipe)
        with join_world() as world:
            run = Run(recipe, corpus, world)
            threading.Thread(target=_listen, args=(board, run), daemon=True).start()
            return run()
    except (UserError, JobError) as error:
        try:
            ray.get(board.end.remote(error), timeout=OTHERS_SECONDS)
        except GetTimeoutError:
            # The others know nothing of it and wait for this rank: its failure has Ray kill them.
            raise error from None
        return None


def _listen(board: Any, run: Run) -> None:
    ray.get(board.stopped.remote())
    run.told_to_stop = True


@contextmanager
def _sigterm_reaches(board: Any) -> Iterator[None]:
    """Within it, SIGTERM to this process has all ranks save at the end of their step."""
    asked = threading.Event()

    def pass_on() -> None:
        asked.wait()
        ray.get(board.stop.remote())

    # A handler may interrupt Ray at any point; only the thread calls it.
    threading.Thread(target=pass_on, daemon=True).start()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reason(error: Exception) -> str:
    """The last line of what Ray tells, which has the exception of the rank."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
