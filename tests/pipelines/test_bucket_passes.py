"""A finished dataset is selected from and packed again by other settings: fabricated finished work, no Ray."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.bucket_passes import BucketPasses, BucketState
from pipelines.config import AnnotateConfig
from pipelines.corpus.write_shards import language_in_name
from samples.finished_work import CLIPS_A_RECORDING, make_finished
from voxmill.data.layout import read_index
from voxmill.data.snapshot import Snapshot, write_snapshot


def configured(**changes: dict[str, object]) -> AnnotateConfig:
    write = {"buckets": 1} | changes.pop("write", {})
    fixed = {"run": {"workers": 1}, "voice_attributes": {"labellers": []}, "corpus_labels": {"labels": []}}
    return AnnotateConfig.model_validate({"write": write, **fixed, **changes})


def finish(out: Path, **changes: dict[str, object]) -> BucketState:
    """The passes of `voxmill annotate` on a dataset whose units are done."""
    passes = BucketPasses(out, configured(**changes))
    clips = passes.measure()
    norms, name = passes.norms()
    speakers, parts = passes.speakers(clips), passes.repeated(clips)
    (state,) = passes.finish_buckets(norms, name, parts, passes.cutoff(norms, parts), speakers)
    write_snapshot(out, Snapshot(buckets=passes.buckets, norms=name, speakers=speakers, files=(state.files,)))
    return state


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Eight recordings in five languages."""
    make_finished(tmp_path, 8 * CLIPS_A_RECORDING, configured())
    return tmp_path


def names(state: BucketState) -> list[str]:
    return [shard.name for shard in state.files.shards]


def test_clips_that_do_not_meet_the_condition_are_rejected_and_counted(out: Path) -> None:
    finish(out)
    everything = read_index(out / "clips.parquet")
    units = {path: path.stat().st_mtime_ns for path in (out / "work" / "units").rglob("*.tar")}
    where = "language in ('en', 'zh') and quality.snr_db > 20"
    state = finish(out, select={"where": where})
    kept, rejected = read_index(out / "clips.parquet"), read_index(out / "rejected.parquet")
    assert 0 < kept.num_rows < everything.num_rows
    assert set(kept["language"].to_pylist()) == {"en", "zh"}
    assert min(quality["snr_db"] for quality in kept["quality"].to_pylist()) > 20
    reasons = Counter(rejected["reason"].to_pylist())
    assert reasons["where"] == everything.num_rows - kept.num_rows
    assert {row["stage"] for row in rejected.to_pylist() if row["reason"] == "where"} == {"selection"}
    assert sum(reasons.values()) == state.summary.rejected.count
    assert units == {path: path.stat().st_mtime_ns for path in (out / "work" / "units").rglob("*.tar")}
    finish(out)
    assert read_index(out / "clips.parquet").drop(["shard", "offset"]).equals(everything.drop(["shard", "offset"]))


def shards_by_language(table: pa.Table) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in table.select(["shard", "language"]).to_pylist():
        found.setdefault(row["shard"], set()).add(row["language"])
    return found


def test_shards_by_language_have_one_each_and_the_same_bytes_in_every_run(out: Path, tmp_path: Path) -> None:
    mixed = finish(out)
    assert len(names(mixed)) == 1
    by_language: dict[str, object] = {"shard_by": "language"}
    state = finish(out, write=by_language)
    found = shards_by_language(read_index(out / "clips.parquet"))
    assert len(found) == 5 and all(languages == {language_in_name(shard)} for shard, languages in found.items())
    assert sum(shard.clips for shard in state.files.shards) == read_index(out / "clips.parquet").num_rows
    assert all(name.startswith("shards/clips-00000") for name in names(state))
    # A language that is not selected any more changes no shard of the others.
    fewer = finish(out, write=by_language, select={"where": "language != 'de'"})
    assert set(names(fewer)) == {name for name in names(state) if language_in_name(name) != "de"}
    # Of its own content alone: another dataset of the same work has the same shards, but for their numbers.
    other = tmp_path / "other"
    make_finished(other, 8 * CLIPS_A_RECORDING, configured())
    again = finish(other, write=by_language)
    assert [name.split("-", 2)[2] for name in names(again)] == [name.split("-", 2)[2] for name in names(state)]
    assert finish(other, write=by_language).reused
    assert names(finish(out))[0].count("-") == 2


def test_small_shards_of_a_language_hold_the_limit(out: Path) -> None:
    state = finish(out, write={"shard_by": "language", "shard_megabytes": 0.01})
    found = shards_by_language(read_index(out / "clips.parquet"))
    assert len(found) > 5 and all(len(languages) == 1 for languages in found.values())
    assert len(set(names(state))) == len(found)
