"""From the first step to the last of both trainers: watched, and its end reported, whatever it is."""

import os
from typing import Any, Protocol

from training.run.checkpoints import Checkpoints
from training.run.watchdog import Watchdog
from training.run.world import World
from voxmill.core.errors import PROGRESS_SAVED, ExitStatus
from voxmill.core.local_copies import WorkingFolder
from voxmill.core.tracking import OFF, SENT, Tracker


class Trainer(Protocol):
    """A run, seen from one rank."""

    world: World
    checkpoints: Checkpoints[Any]
    tracker: Tracker | None
    """Of the first rank, where it reports already."""
    files: WorkingFolder
    """What the tracker writes."""

    @property
    def step(self) -> int:
        """Steps that were made."""

    def train(self, watchdog: Watchdog) -> bool:
        """Makes all steps (False), or until a stop signal (True); saves in both cases."""

    def export(self) -> None:
        """After the last step; all ranks call it together."""


def run_to_end(trainer: Trainer, hang_seconds: float | None) -> ExitStatus:
    """DONE, or STOPPED after a stop signal.

    Args:
        hang_seconds: without a finished step, after which the process ends; None: never.
    """
    try:
        with Watchdog(hang_seconds, trainer.world.rank) as watchdog:
            stopped = trainer.train(watchdog)
        trainer.checkpoints.finish()
        if not stopped:
            trainer.export()
        elif trainer.world.is_first:
            done = f"after step {trainer.step}" if trainer.step else "before the first step"
            print(f"stopped by a signal {done}; {PROGRESS_SAVED}", flush=True)
    except BaseException as error:
        # Not left to be written while this rank leaves the others.
        for end in (trainer.checkpoints.wait, lambda: _finish(trainer, "FAILED")):
            try:
                end()
            except Exception as other:
                error.add_note(f"and its last files were not written: {other}")
        raise
    _finish(trainer, "KILLED" if stopped else "FINISHED")
    return ExitStatus.STOPPED if stopped else ExitStatus.DONE


def _finish(trainer: Trainer, status: str) -> None:
    if trainer.tracker is not None:
        trainer.tracker.finish(status)
        trainer.files.push()
        trainer.files.close()


def tracker_in(
    files: WorkingFolder, *, uri: str | None, experiment: str, name: str, run_id: str | None, step: int
) -> Tracker:
    """The tracker of a run's folder, which may lie in object storage; arguments as those of `Tracker`.

    MLflow's own database cannot lie there: without a server metrics.jsonl alone is kept.
    """
    files.fetch("metrics.jsonl", SENT)
    if files.is_remote and uri is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        uri = OFF
    return Tracker(files.local, uri=uri, experiment=experiment, name=name, run_id=run_id, step=step)
