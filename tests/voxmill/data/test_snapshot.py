from pathlib import Path

import pytest

from voxmill.core.errors import UserError
from voxmill.data.layout import part_path
from voxmill.data.snapshot import (
    BucketFiles,
    PartFile,
    ShardFile,
    Snapshot,
    earlier_snapshots,
    missing_parts,
    read_snapshot,
    read_snapshot_file,
    write_snapshot,
)


def _files(bucket: int) -> BucketFiles:
    part = PartFile.of(b"part", 3)
    shard = ShardFile(name=f"shards/{bucket:04x}/clips-000000.tar", size=9, sha256="ab", clips=3)
    return BucketFiles(bucket=bucket, clips=part, rejected=part, recordings=part, shards=(shard,))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path) is None
    snapshot = Snapshot(buckets=4, norms="norms/norms-0123.json", files=(_files(0), _files(3)))
    write_snapshot(tmp_path, snapshot)
    assert read_snapshot(tmp_path) == snapshot
    # The one before a change is kept; what does not change it keeps none.
    write_snapshot(tmp_path, snapshot)
    assert earlier_snapshots(tmp_path) == []
    later = [Snapshot(buckets=4, files=(_files(bucket),)) for bucket in (1, 2)]
    for one in later:
        write_snapshot(tmp_path, one)
    assert [read_snapshot_file(path) for path in earlier_snapshots(tmp_path)] == [snapshot, later[0]]
    assert [path.name[:7] for path in earlier_snapshots(tmp_path)] == ["000000-", "000001-"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ('{"format":1}', "cannot be read"), ('{"format":9,"buckets":1,"files":[]}', "format 9")],
)
def test_a_damaged_or_newer_one_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_snapshot(tmp_path)


def test_parts_that_are_not_there_are_named(tmp_path: Path) -> None:
    snapshot = Snapshot(buckets=4, files=(_files(0), _files(3)))
    part = part_path(tmp_path, "clips.parquet", 0, 4)
    part.parent.mkdir()
    part.touch()
    assert missing_parts(tmp_path, "clips.parquet", snapshot) == [tmp_path / "clips.parquet" / "0003.parquet"]
