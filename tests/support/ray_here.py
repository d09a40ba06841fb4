"""A Ray of two CPUs in the tests' own process."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from voxmill.core.local_ray import join_ray


@contextmanager
def ray_of_two_cpus() -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # A job that a test before ran in this process may have left its own.
        ray.shutdown()
        join_ray(num_cpus=2)
        yield
        ray.shutdown()
