"""The corpus steps over buckets: the same bytes whoever works, and one more recording touches its own bucket alone."""

import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.driver import add_recording, digests
from pipelines.config import AnnotateConfig
from pipelines.finish import Labelled, Started, check_labels, finish
from samples.finished_work import CLIPS_A_RECORDING, make_finished
from tests.support.ray_here import ray_of_two_cpus
from voxmill.core.errors import UserError
from voxmill.core.progress import Progress
from voxmill.data.layout import index_parts, read_index
from voxmill.data.snapshot import read_snapshot

BUCKETS = AnnotateConfig.model_validate({"write": {"buckets": 4}})


@pytest.fixture
def two_cpus() -> Iterator[None]:
    """One Ray for all runs of a test, which a start takes longer than."""
    with ray_of_two_cpus():
        yield


def finish_here(out: Path, config: AnnotateConfig = BUCKETS) -> None:
    started = Started(time=datetime.datetime.now(datetime.UTC), clock=time.perf_counter())
    finish(out, config, Progress(enabled=False), Labelled(units=0, found_done=0, attributed=0), started)


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.slow
def test_a_recording_more_touches_its_own_bucket_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    clips = make_finished(out, 5 * CLIPS_A_RECORDING, BUCKETS, first=0)
    finish_here(out)
    snapshot = read_snapshot(out)
    assert snapshot is not None and snapshot.buckets == 4
    indexes = [read_index(out / name) for name in ("clips.parquet", "rejected.parquet", "recordings.parquet")]
    assert indexes[0].num_rows + indexes[1].num_rows == clips and indexes[2].num_rows == 5
    assert len(index_parts(out / "clips.parquet")) == len(snapshot.files)
    before = digests(out)
    finish_here(out)
    assert digests(out) == before
    written, changed, _ = add_recording(out, clips, lambda: finish_here(out))
    # Three parts of indexes, dataset.json, the state before it, and a shard.
    assert written <= 8 and changed == 0
    assert read_index(out / "recordings.parquet").num_rows == 6
    before = digests(out)
    part = index_parts(out / "clips.parquet")[-1]
    clip_id = read_index(part, ["clip_id"])["clip_id"][0].as_py()
    (tmp_path / "given.csv").write_text(f"clip_id,text\n{clip_id},another text\nnone,x\n")
    finish_here(out, BUCKETS.model_copy(update={"corrections": tmp_path / "given.csv"}))
    assert json.loads((out / "run.json").read_text())["corrections"] == {
        "rows": 2,
        "clips": {"text": 1},
        "unknown": 1,
        "unknown_examples": ["none"],
    }
    changed_files = {name for name, digest in digests(out).items() if before.get(name) != digest}
    assert {f"clips.parquet/{part.name}", "dataset.json"} <= changed_files
    assert all(part.stem in name for name in changed_files - {"dataset.json"})


def test_speakers_are_not_joined_across_buckets(tmp_path: Path) -> None:
    make_finished(tmp_path, CLIPS_A_RECORDING, BUCKETS)
    config = AnnotateConfig.model_validate({"corpus_labels": {"speakers": {"across_sessions": True}}})
    with pytest.raises(UserError, match="across_sessions"):
        check_labels(tmp_path, config)
