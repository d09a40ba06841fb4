"""What the finish says at its end."""

from pathlib import Path

from pipelines.finish import _unnamed_bytes
from samples.fabricate import rows, write_dataset
from voxmill.data.snapshot import read_snapshot


def test_shards_of_earlier_runs_are_counted_in_bytes(tmp_path: Path) -> None:
    out = write_dataset(tmp_path / "out", rows(clips_each=1), buckets=2)
    snapshot = read_snapshot(out)
    assert snapshot is not None and _unnamed_bytes(out, snapshot.files) == 0
    (out / "shards" / "0000" / "clips-old.tar").write_bytes(b"x" * 700)
    assert _unnamed_bytes(out, snapshot.files) == 700
