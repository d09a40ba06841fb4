"""How often Ray Data's driver looks after its tasks.

Its loop turns ten times a second whether anything has happened or not, at about 6 ms a turn: on a machine whose cores
all label, that is time the models lack. Units take seconds; between two events the loop can as well sleep.
"""

from typing import TYPE_CHECKING, Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

# Ray Data fetches a finished task's metadata in a thread of its own and takes it up a turn or two later.
BUSY_TURNS = 5
# At least so often it looks at what is no task: a consumer that has caught up, actors that died, a cluster that grew.
LONGEST_SLEEP_SECONDS = 1.0


class Patience(ExecutionCallback):
    """Sleeps until a task is done, where the last turns of the loop have changed nothing."""

    def __init__(self) -> None:
        self._last: set[Any] = set()
        self._turns = 0

    def on_execution_step(self, executor: "StreamingExecutor") -> None:
        """Called by Ray Data after each turn."""
        import ray

        tasks = {task.get_waitable() for operator in executor._topology or () for task in operator.get_active_tasks()}
        self._turns = self._turns + 1 if tasks == self._last else 0
        self._last = tasks
        if tasks and self._turns >= BUSY_TURNS:
            done, _ = ray.wait(list(tasks), num_returns=1, timeout=LONGEST_SLEEP_SECONDS, fetch_local=False)
            if done:
                self._turns = 0
