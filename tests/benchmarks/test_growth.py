"""A node that comes in the middle of a job is used by the pool that prepares: a real Ray of two nodes."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.support.stand_ins import SleepingMeasure, SleepingModels, SleepingPrepare, stand_in_units
from pipelines.config import AnnotateConfig
from pipelines.engine.graph import run_graph
from pipelines.engine.pools import Cluster, plan_pools
from pipelines.stages.base import UnitOutput, WindowAudio
from voxmill.core.local_ray import this_node
from voxmill.data.records import WorkUnit

UNITS = 120
"""Two minutes of one node alone: another one is there by then, however busy the machine."""
CONFIG = AnnotateConfig()


class NotedPrepare(SleepingPrepare):
    """The slowest pool, so that units wait for it; leaves the name of its node beside OUT."""

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        noted = self._file.parent.with_name(f"out-on-{this_node()[0]}")
        noted.touch()
        if len(list(noted.parent.glob("out-on-*"))) < 2:
            time.sleep(1.0)
        return super().run(unit, audio)


def units_of(bucket: int) -> list[WorkUnit]:
    return stand_in_units(UNITS, 6.0, bucket)


@pytest.mark.slow
def test_a_node_that_comes_late_prepares_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.cluster_utils import Cluster as Nodes

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    out = tmp_path / "out"
    node = {"num_cpus": 1, "num_gpus": 1, "memory": 4_000_000_000, "object_store_memory": 200_000_000}
    nodes = Nodes(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        ray.init(address=nodes.address, log_to_driver=False)
        stages = (NotedPrepare, SleepingModels, SleepingMeasure)
        pools = plan_pools(stages, CONFIG.run, Cluster.now(), UNITS)
        assert len(pools) == 3 and [pool.initial for pool in pools] == [1, 1, 1]
        rows = run_graph((0,), units_of, pools, out=out, config=CONFIG, run="test")
        done = [next(rows).unit.unit_id for _ in range(3)]
        nodes.add_node(**node)  # type: ignore[arg-type]
        done += [row.unit.unit_id for row in rows]
        assert len(done) == len(set(done)) == UNITS
        assert len(list(tmp_path.glob("out-on-*"))) == 2
    finally:
        ray.shutdown()
        nodes.shutdown()  # type: ignore[no-untyped-call]
