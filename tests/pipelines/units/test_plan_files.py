"""What the phases hand to each other: plans of buckets."""

from pathlib import Path

import pytest

from pipelines.config import LabelConfig
from pipelines.units.plan_files import (
    BucketPlan,
    fix_buckets,
    planned_buckets,
    read_recordings,
    read_units,
    split_folder,
    write_plan,
)
from pipelines.units.unit import group, label_fingerprint, split
from tests.pipelines.units.test_units import windows
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.data.records import Recording


def plan(bucket: int, count: int = 3) -> BucketPlan:
    recordings = tuple(
        Recording(recording_id=window.recording_id, path=window.name, session=window.name, state="planned")
        for window in windows(count)
    )
    units = group(windows(count), 600, label_fingerprint(LabelConfig()), bucket)
    return BucketPlan(recordings=recordings, units=tuple(units))


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plans = {3: plan(3), 10: plan(10, 2)}
    write_plan(tmp_path, plans)
    assert planned_buckets(tmp_path) == [3, 10]
    for bucket, made in plans.items():
        assert tuple(read_units(tmp_path, bucket, LabelConfig())) == made.units
        assert tuple(read_recordings(tmp_path, bucket)) == made.recordings


def test_only_files_of_buckets_that_change_are_written(tmp_path: Path) -> None:
    write_plan(tmp_path, {0: plan(0), 1: plan(1), 2: plan(2)})
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "plan").iterdir()}
    write_plan(tmp_path, {0: plan(0), 1: plan(1, 4)})
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "plan").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"0001.recordings.parquet", "0001.units.parquet"}
    assert planned_buckets(tmp_path) == [0, 1]


def test_a_unit_that_was_split_comes_as_its_windows(tmp_path: Path) -> None:
    made = plan(5)
    write_plan(tmp_path, {5: made})
    write_atomically(split_folder(tmp_path) / made.units[0].unit_id, b"")
    singles = split(made.units[0], label_fingerprint(LabelConfig()))
    assert read_units(tmp_path, 5, LabelConfig()) == [*singles, *made.units[1:]]
    assert all(unit.bucket == 5 for unit in singles)


def test_the_number_of_buckets_is_fixed_when_a_dataset_is_made(tmp_path: Path) -> None:
    assert fix_buckets(tmp_path, hours=40.0, forced=None) == 4
    assert fix_buckets(tmp_path, hours=4000.0, forced=None) == 4
    with pytest.raises(UserError, match="was made with 4 buckets"):
        fix_buckets(tmp_path, hours=40.0, forced=8)
