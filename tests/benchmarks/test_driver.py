"""The corpus steps over buckets: the same bytes whoever works, and one more recording touches its own bucket alone."""

from pathlib import Path

import pytest
import ray

from benchmarks.driver import add_recording, digests, finish
from pipelines.config import AnnotateConfig
from samples.finished_work import CLIPS_A_RECORDING, make_finished
from voxmill.core.errors import UserError
from voxmill.data.layout import index_parts, read_index
from voxmill.data.snapshot import read_snapshot

BUCKETS = AnnotateConfig.model_validate({"write": {"buckets": 4}})


@pytest.fixture(scope="module", autouse=True)
def no_ray_of_other_tests() -> None:
    ray.shutdown()


def test_a_recording_more_touches_its_own_bucket_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    clips = make_finished(out, 5 * CLIPS_A_RECORDING, BUCKETS, first=0)
    finish(out, 2, "write.buckets=4")
    snapshot = read_snapshot(out)
    assert snapshot is not None and snapshot.buckets == 4
    indexes = [read_index(out / name) for name in ("clips.parquet", "rejected.parquet", "recordings.parquet")]
    assert indexes[0].num_rows + indexes[1].num_rows == clips and indexes[2].num_rows == 5
    assert len(index_parts(out / "clips.parquet")) == len(snapshot.files)
    before = digests(out)
    finish(out, 1, "write.buckets=4")
    assert digests(out) == before
    written, changed, _ = add_recording(out, clips, 2, "write.buckets=4")
    # Three parts of indexes, dataset.json, the state before it, and a shard.
    assert written <= 8 and changed == 0
    assert read_index(out / "recordings.parquet").num_rows == 6


def test_speakers_are_not_joined_across_buckets(tmp_path: Path) -> None:
    from pipelines.finish import check_labels

    make_finished(tmp_path, CLIPS_A_RECORDING, BUCKETS)
    config = AnnotateConfig.model_validate({"corpus_labels": {"speakers": {"across_sessions": True}}})
    with pytest.raises(UserError, match="across_sessions"):
        check_labels(tmp_path, config)
