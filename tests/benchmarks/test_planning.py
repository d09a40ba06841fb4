"""The benchmark of planning runs tiny."""

from pathlib import Path

import pytest

from benchmarks.planning import measure
from voxmill.core.local_ray import local_ray


@pytest.mark.slow
def test_a_tiny_corpus_is_planned_by_tasks(tmp_path: Path) -> None:
    with local_ray(num_cpus=1) as address:
        figures = measure(tmp_path / "made", 3000, 60.0, address)
    assert figures["rows"] == 3000 and figures["buckets"] == 4 and figures["driver_gb"] > 0
