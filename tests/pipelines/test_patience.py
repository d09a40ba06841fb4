"""Ray Data's driver between two events, with a real Ray."""

import time

import pyarrow as pa
import pytest
import ray
import ray.data

from pipelines.graph import quiet_context
from pipelines.patience import Patience


class Slow:
    """A unit's worth of work."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(1.5)
        return batch


def test_the_driver_sleeps_while_units_are_worked_on_and_misses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []

    class Counted(Patience):
        def on_execution_step(self, executor: object) -> None:
            turns.append(time.monotonic())
            super().on_execution_step(executor)  # type: ignore[arg-type]

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        quiet_context().custom_execution_callback_classes = [Counted]
        dataset = ray.data.from_items([{"unit": number} for number in range(4)], override_num_blocks=4).map_batches(
            Slow, batch_size=1, batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=1)
        )
        found = sorted(row["unit"] for row in dataset.iter_rows())
        worked = turns[-1] - turns[0]
    finally:
        quiet_context()
        ray.shutdown()
    assert found == [0, 1, 2, 3]
    assert worked >= 4 * 1.5
    # Ten a second is what Ray Data does by itself; five after every event and one a second is what is left.
    assert len(turns) < 0.75 * 10 * worked
