"""Clips that several buckets have are kept once, by the earliest name."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.corpus.duplicates import num_parts, read_repeated, write_hashes, write_repeated
from pipelines.corpus.measures import corpus_path

ROWS = {
    0: [("a", "z.flac", 0, True), ("b", "b.flac", 0, True), ("c", "c.flac", 0, False)],
    1: [("a", "a.flac", 5, True), ("d", "d.flac", 0, True), ("c", "a.flac", 9, True)],
    2: [("a", "a.flac", 7, True), ("b", "c.flac", 0, True)],
}


# "d" has the hash of "a", by which two of its parts differ; the names tell them apart.
@pytest.mark.parametrize("hashes", [{"a": -9, "b": 2, "c": 3, "d": 4}, {"a": 1, "b": 2, "c": 3, "d": 1}])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_clip_of_the_first_name_stays(tmp_path: Path, parts: int, hashes: dict[str, int]) -> None:
    for bucket, rows in ROWS.items():
        path = corpus_path(tmp_path, bucket, "parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        clip_id, name, start, kept = zip(*rows, strict=True)
        numbers = np.array([hashes[one] for one in clip_id], np.int64)
        pq.write_table(
            pa.table({"clip_id": clip_id, "hash": numbers, "name": name, "start_sample": start, "kept": kept}), path
        )
    # As where there are many parts: the hashes of buckets 0 and 1 in one file, those of bucket 2 in another.
    files = [[0, 1], [2]] if parts > 1 else []
    for number, buckets in enumerate(files):
        write_hashes(tmp_path, buckets, number, parts)
    for part in range(parts):
        write_repeated(tmp_path, list(ROWS), part, parts, len(files))
    # "c" of bucket 0 was not kept, so it takes nobody's place.
    assert [read_repeated(tmp_path, bucket, parts) for bucket in ROWS] == [["a"], [], ["a", "b"]]


def test_nothing_repeated_is_found_again_as_nothing(tmp_path: Path) -> None:
    for bucket in (0, 1):
        path = corpus_path(tmp_path, bucket, "parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"clip_id": [str(bucket)], "hash": [bucket], "name": ["x"], "start_sample": [0], "kept": [True]}
        pq.write_table(pa.table(columns), path)
    write_repeated(tmp_path, [0, 1], 0, 1, 0)
    assert read_repeated(tmp_path, 0, 1) == read_repeated(tmp_path, 1, 1) == []


def test_one_bucket_is_compared_with_none(tmp_path: Path) -> None:
    assert num_parts(100, buckets=1) == 0 and read_repeated(tmp_path, 3, 0) == []
