from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxmill.data.layout import (
    MAX_BUCKETS,
    bucket_name,
    bucket_of,
    count_rows,
    index_parts,
    num_buckets,
    part_path,
    read_index,
    stream_index,
)


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


def _write(folder: Path, *tables: pa.Table) -> Path:
    index = folder / "clips.parquet"
    index.mkdir()
    for bucket, table in enumerate(tables):
        pq.write_table(table, index / f"{bucket_name(bucket)}.parquet")
    return index


def test_a_part_of_an_older_version_has_nulls_where_it_lacks_columns(tmp_path: Path) -> None:
    old = pa.table({"a": [1], "q": [{"x": 1.0}]})
    new = pa.table({"a": [2], "b": ["new"], "q": [{"x": 2.0, "y": 3.0}]})
    table = read_index(_write(tmp_path, old, new, old.slice(0, 0)))
    assert table.to_pylist() == [
        {"a": 1, "q": {"x": 1.0, "y": None}, "b": None},
        {"a": 2, "q": {"x": 2.0, "y": 3.0}, "b": "new"},
    ]


def test_other_files_in_the_folder_are_no_parts(tmp_path: Path) -> None:
    index = _write(tmp_path, pa.table({"a": [1]}))
    for name in ("0000 (copy).parquet", "_metadata", ".0000.parquet.0123.tmp", "backup.parquet", "notes.txt"):
        (index / name).write_bytes(b"no parquet")
    assert read_index(index).num_rows == count_rows(index) == 1


def test_a_torn_part_is_named(tmp_path: Path) -> None:
    index = _write(tmp_path, pa.table({"a": [1]}), pa.table({"a": [2]}))
    part = index / "0001.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    for read in (read_index, lambda path: list(stream_index(path)), count_rows):
        with pytest.raises(pa.ArrowInvalid, match=r"^0001\.parquet: "):
            read(index)


def test_a_stream_is_the_index_by_the_piece(tmp_path: Path) -> None:
    parts = [pa.table({"a": list(range(start, start + 10)), "b": ["x"] * 10}) for start in (0, 10, 20)]
    index = _write(tmp_path, *parts)
    pieces = list(stream_index(index, ["a", "no"], rows=4))
    assert [piece.num_rows for piece in pieces] == [4, 4, 2] * 3
    assert pa.concat_tables(pieces).equals(read_index(index, ["a"]))
