"""A Ray of two CPUs for the steps that spread their work."""

from collections.abc import Iterator

import pytest

from voxmill.core.local_ray import join_ray


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # A job that a test before ran in this process may have left its own.
        ray.shutdown()
        join_ray(num_cpus=2)
        yield
        ray.shutdown()
