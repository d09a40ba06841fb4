from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxmill.data.layout import MAX_BUCKETS, bucket_name, bucket_of, index_parts, num_buckets, part_path, read_index


def test_the_number_of_buckets_is_a_power_of_two_within_bounds() -> None:
    counts = [num_buckets(hours) for hours in (0, 16, 16.1, 100, 2e6, 1e9)]
    assert counts == [1, 1, 2, 8, MAX_BUCKETS, MAX_BUCKETS]


def test_sessions_spread_over_the_buckets_by_name_alone() -> None:
    counts = [0] * 8
    for number in range(8000):
        counts[bucket_of(f"session {number}", 8)] += 1
    assert min(counts) > 900 and max(counts) < 1100
    assert bucket_of("a\ud800", 8) == bucket_of("a\ud800", 8)
    assert bucket_of("en-1", 65_536) == 54815


@pytest.mark.parametrize("buckets", [1, 4])
def test_an_index_is_a_file_or_a_folder_of_parts(tmp_path: Path, buckets: int) -> None:
    index = tmp_path / "clips.parquet"
    with pytest.raises(FileNotFoundError):
        read_index(index)
    for bucket in reversed(range(buckets)):
        part = part_path(tmp_path, "clips.parquet", bucket, buckets)
        part.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"a": [bucket], "b": ["x"]}), part)
    assert index.is_file() == (buckets == 1)
    assert len(index_parts(index)) == buckets
    assert read_index(index, ["a", "no"]).to_pydict() == {"a": list(range(buckets))}


def test_names_of_buckets_have_four_digits() -> None:
    assert bucket_name(0x1A3) == "01a3"
