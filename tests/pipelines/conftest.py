"""A Ray of two CPUs for the steps that spread their work."""

from collections.abc import Iterator

import pytest

from tests.support.ray_here import ray_of_two_cpus


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with ray_of_two_cpus():
        yield
