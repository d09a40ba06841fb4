"""The crash audit on a few bad inputs: killed jobs lose nothing, repeat nothing, and end with the same bytes."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.audit import audit
from samples import bad_input
from voxmill.core.local_ray import local_ray

CHOSEN = ("truncated.flac", "silence.wav", "a/same name.flac", "emoji 🎙.flac", "dotted.name.v1.2.flac", "text.wav")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_ray(num_cpus=2) as address:
        yield address


def test_killed_jobs_resume_and_end_with_the_same_bytes(address: str, tmp_path: Path) -> None:
    corpus = tmp_path / "few" / "in"
    bad_input.make(corpus)
    for name in set(bad_input.CASES) - set(CHOSEN):  # each crash costs a start of all models
        (corpus / name).unlink()
    # The first kill makes one worker two, so their bytes are compared without another run.
    tally = audit(
        corpus,
        sorted(CHOSEN),
        tmp_path,
        kills=2,
        seed=3,
        head=psutil.Process(),
        address=address,
        also_alone_on_two=False,
    )
    assert (tally.kills, tally.driver_kills) == (2, 1)
    assert (tally.lost, tally.repeated, tally.same_bytes) == (0, 0, True)
    assert tally.model_calls > 0
