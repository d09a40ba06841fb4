"""Which actors run which stages, on clusters of any size."""

import itertools

import pytest

from pipelines.config import RunConfig
from pipelines.engine.pools import STAGES, VOICE_STAGES, Cluster, plan_pools


@pytest.mark.parametrize(
    ("gpus", "settings", "expected"),
    [
        (0, {}, 1),
        (0, {"pools": True}, 3),
        (2, {}, 3),
        (2, {"pools": False}, 1),
        (0, {"gpus": 2}, 3),
        (2, {"gpus": 0}, 1),
    ],
)
def test_three_pools_where_there_are_gpus(gpus: int, settings: dict[str, int], expected: int) -> None:
    pools = plan_pools(STAGES, RunConfig.model_validate(settings), Cluster(cpus=8, gpus=gpus), 100)
    assert len(pools) == expected and [stage for pool in pools for stage in pool.stages] == list(STAGES)


@pytest.mark.parametrize(("cpus", "gpus"), itertools.product((0, 1, 2, 3, 4, 8, 16, 96), (0, 1, 2, 4, 8)))
def test_the_smallest_actors_of_all_pools_fit_one_cpu(cpus: int, gpus: int) -> None:
    for stages in (STAGES, VOICE_STAGES):
        pools = plan_pools(stages, RunConfig(), Cluster(cpus=cpus, gpus=gpus), 1000)
        assert sum(pool.num_cpus for pool in pools) <= 1.0001
        assert [pool.num_gpus for pool in pools] in ([0], [0, 1, 0], [1, 0])
        # Where a GPU is free, an actor starts; no pool holds a GPU that it does not compute on.
        assert all(pool.num_cpus == 0 for pool in pools if pool.num_gpus)
        assert all(pool.initial <= (pool.most or pool.initial) for pool in pools)


def test_a_pool_begins_with_what_there_is_and_grows_with_the_cluster() -> None:
    (one,) = plan_pools(STAGES, RunConfig(), Cluster(cpus=16, gpus=0), 100)
    assert (one.initial, one.most) == (16, None)
    prepare, models, measure = plan_pools(STAGES, RunConfig(), Cluster(cpus=32, gpus=4), 100)
    assert (models.initial, models.most) == (4, None) and (measure.initial, measure.most) == (32, None)
    assert prepare.initial == 8
    bounded = plan_pools(STAGES, RunConfig(workers=3, gpus=2), Cluster(cpus=32, gpus=4), 100)
    # What a cluster has as the job begins bounds no pool; each machine bounds those that prepare.
    assert prepare.most is None and prepare.memory == 2 << 30 and models.memory == measure.memory == 0
    small = plan_pools(STAGES, RunConfig(), Cluster(cpus=32, gpus=4, memory=4e9), 100)
    assert small[0].memory == 1e9
    assert [pool.most for pool in bounded] == [3, 2, 3] and [pool.initial for pool in bounded] == [1, 2, 3]


def test_no_more_actors_than_units() -> None:
    assert [pool.initial for pool in plan_pools(STAGES, RunConfig(), Cluster(cpus=64, gpus=8), 2)] == [2, 2, 2]


def test_stages_have_names_of_their_own() -> None:
    assert len({stage.name for stage in STAGES}) == len(STAGES)
