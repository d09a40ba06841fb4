"""From the first step to the last of both trainers: watched, and its end reported, whatever it is."""

from typing import Any, Protocol

from training.run.checkpoints import Checkpoints
from training.run.watchdog import Watchdog
from training.run.world import World
from voxmill.core.errors import PROGRESS_SAVED, ExitStatus
from voxmill.core.tracking import Tracker


class Trainer(Protocol):
    """A run, seen from one rank."""

    world: World
    checkpoints: Checkpoints[Any]
    tracker: Tracker | None
    """Of the first rank, where it reports already."""

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
        trainer.checkpoints.wait()
        if not stopped:
            trainer.export()
        elif trainer.world.is_first:
            done = f"after step {trainer.step}" if trainer.step else "before the first step"
            print(f"stopped by a signal {done}; {PROGRESS_SAVED}", flush=True)
    except BaseException:
        _finish(trainer, "FAILED")
        raise
    _finish(trainer, "KILLED" if stopped else "FINISHED")
    return ExitStatus.STOPPED if stopped else ExitStatus.DONE


def _finish(trainer: Trainer, status: str) -> None:
    if trainer.tracker is not None:
        trainer.tracker.finish(status)
