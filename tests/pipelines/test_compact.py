"""`voxmill compact`: fewer shards, the same clips; ended anywhere it can be repeated."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.compact import Compaction, compact, compact_bucket, small_groups
from samples.fabricate import add_latents, rows, write_dataset
from voxmill.cli.app import run
from voxmill.core import files
from voxmill.core.errors import JobError, UserError
from voxmill.data.dataset import Dataset
from voxmill.data.layout import part_path, read_index
from voxmill.data.schemas import write_parquet
from voxmill.data.shards import read_member
from voxmill.data.snapshot import ShardFile, earlier_snapshots, read_snapshot

SESSIONS = ("en-1", "en-2", "it-1", "es-1", "fr-1", "ru-1")
MEGABYTES = 1.0


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two buckets of sessions with a shard each, encoded."""
    return add_latents(write_dataset(tmp_path_factory.mktemp("made"), rows(SESSIONS, 2), buckets=2))


@pytest.fixture
def out(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def clips_of(out: Path) -> list[tuple[str, bytes]]:
    """Clips in the index's order with their bytes, read as readers do."""
    return [(clip.clip_id, read_member(out, clip.shard, clip.offset, clip.size)) for clip in Dataset.open(out).clips()]


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_shards_of_a_bucket_become_one_and_clips_stay_what_they_were(out: Path, made: Path) -> None:
    before, latents = clips_of(out), content(out / "latents.parquet")
    done = compact(out, MEGABYTES)
    assert (done.merged, done.written) == (6, 2) and done.size > 0
    table = read_index(out / "clips.parquet")
    assert clips_of(out) == before and len(set(table["shard"].to_pylist())) == 2
    old = read_index(made / "clips.parquet")
    for name in table.column_names:
        assert table[name].equals(old[name]) == (name not in ("shard", "offset")), name
    assert content(out / "latents.parquet") == latents
    snapshot, earlier = read_snapshot(out), earlier_snapshots(out)
    assert snapshot is not None and len(earlier) == 1
    assert earlier[0].read_bytes() == (made / "dataset.json").read_bytes()
    for bucket in snapshot.files:
        assert bucket.clips.size == part_path(out, "clips.parquet", bucket.bucket, 2).stat().st_size
        for shard in bucket.shards:
            assert (out / shard.name).stat().st_size == shard.size
    # The old ones are there for who reads them now, and a second run finds nothing to do.
    assert all((out / name).exists() for name in old["shard"].to_pylist())
    state = content(out)
    assert compact(out, MEGABYTES) == Compaction()
    assert content(out) == state


def test_members_of_a_merged_shard_are_whole_samples(out: Path) -> None:
    import webdataset

    compact(out, MEGABYTES)
    names = sorted({str(out / name) for name in read_index(out / "clips.parquet")["shard"].to_pylist()})
    samples = list(webdataset.WebDataset(names, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [clip_id for clip_id, _ in clips_of(out)]
    assert all(json.loads(sample["json"])["clip_id"] == sample["__key__"] for sample in samples)


def test_ended_anywhere_it_is_repeated_to_the_same_bytes(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may end before or after every file that it writes; a reader finds the same clips all the time."""
    expected = Path(shutil.copytree(made, tmp_path / "expected"))
    compact(expected, MEGABYTES)
    before = clips_of(made)
    publish, ended = files.publish, 0
    for at in range(100):
        out = Path(shutil.copytree(made, tmp_path / f"out{at}"))
        written = 0

        def counted(temporary: Path, path: Path, stop: int = at) -> None:
            nonlocal written
            written += 1
            if written == stop // 2 + 1:
                if stop % 2:
                    publish(temporary, path)
                raise Killed
            publish(temporary, path)

        with monkeypatch.context() as patch:
            patch.setattr("voxmill.core.files.publish", counted)
            patch.setattr("voxmill.data.shards.publish", counted)
            try:
                compact(out, MEGABYTES)
            except Killed:
                ended += 1
            else:
                break
        assert clips_of(out) == before
        compact(out, MEGABYTES)
        assert clips_of(out) == before
        assert content(out) == content(expected), at
        shutil.rmtree(out)
    # Two shards, two parts, the earlier state and the present one, before and after each.
    assert ended == 12


def test_large_shards_and_lone_ones_stay() -> None:
    def shard(name: str, size: int) -> ShardFile:
        return ShardFile(name=name, size=size, sha256="", clips=1)

    shards = [shard("a", 90), shard("b", 10), shard("c", 49), shard("d", 45), shard("e", 50), shard("f", 1)]
    assert [[one.name for one in group] for group in small_groups(shards, 100)] == [["b", "c"], ["d", "f"]]
    assert small_groups(shards[:2], 100) == [] == small_groups([], 100)


def test_shards_of_different_languages_stay_apart() -> None:
    names = [f"shards/clips-{number:06d}-{tag}-0123456789ab.tar" for number, tag in enumerate(("en", "zh-yue") * 2)]
    shards = [ShardFile(name=name, size=1, sha256="", clips=1) for name in names]
    assert [[one.name for one in group] for group in small_groups(shards, 100)] == [names[::2], names[1::2]]


def test_a_damaged_shard_changes_nothing_of_its_bucket(out: Path) -> None:
    snapshot = read_snapshot(out)
    assert snapshot is not None
    bucket = next(bucket for bucket in snapshot.files if len(bucket.shards) > 1)
    shard = out / bucket.shards[1].name
    damaged = bytearray(shard.read_bytes())
    damaged[2_000] ^= 1
    shard.write_bytes(damaged)
    state = content(out)
    with pytest.raises(JobError, match=f"{shard.name}: damaged at clip"):
        compact_bucket(out, bucket, 2, MEGABYTES * 1e6)
    shard.write_bytes(damaged[:1_000])
    with pytest.raises(JobError, match="damaged"):
        compact_bucket(out, bucket, 2, MEGABYTES * 1e6)
    shard.unlink()
    with pytest.raises(JobError, match="not there"):
        compact_bucket(out, bucket, 2, MEGABYTES * 1e6)
    assert {k: v for k, v in content(out).items() if "shards" not in k} == {
        k: v for k, v in state.items() if "shards" not in k
    }


def test_a_shard_that_leaves_the_folder_is_neither_read_nor_written(out: Path, tmp_path: Path) -> None:
    part = part_path(out, "clips.parquet", 0, 2)
    table = pq.read_table(part)
    outside = [f"../elsewhere/clips-{number}.tar" for number in range(table.num_rows)]
    place = table.schema.get_field_index("shard")
    write_parquet(part, table.set_column(place, table.schema.field("shard"), pa.array(outside)))
    with pytest.raises(JobError, match="leaves"):
        compact(out, MEGABYTES)
    assert not (tmp_path / "elsewhere").exists()


def test_empty_buckets_and_datasets_without_a_snapshot(tmp_path: Path) -> None:
    out = write_dataset(tmp_path, rows(("en-1",), 1), buckets=4)
    assert compact(out, MEGABYTES) == Compaction()
    (out / "dataset.json").unlink()
    with pytest.raises(UserError, match="has no dataset.json; run `voxmill annotate` on it again"):
        compact(out, MEGABYTES)


def test_the_command(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compact", str(out), "--shard-megabytes", "0"]) == 2
    assert run(["compact", str(out), "--shard-megabytes", "1"]) == 0
    assert "merged 6 shards" in capsys.readouterr().out
    assert run(["compact", str(out), "--shard-megabytes", "1"]) == 0
    assert "nothing to merge" in capsys.readouterr().out
