"""Other libraries read an index by the same call, be it a file or a folder of parts: docs/increments.md."""

from pathlib import Path

import pyarrow.dataset as pads
import pytest

from samples.fabricate import rows, write_dataset
from voxmill.core.files import temporary_beside

CLIPS = {f"{session}000{number}" for session in ("en1", "it1", "es1") for number in (0, 1)}


@pytest.fixture(scope="module", params=[1, 4], ids=["file", "folder"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`clips.parquet`; of four buckets one at least is empty, and one is just being replaced."""
    out = write_dataset(tmp_path_factory.mktemp("dataset"), rows(("en-1", "it-1", "es-1"), 2), buckets=request.param)
    clips = out / "clips.parquet"
    assert clips.is_dir() == (request.param == 4)
    temporary_beside(clips / "0001.parquet" if clips.is_dir() else clips).write_bytes(b"half a part")
    return str(clips)


def test_pandas(index: str) -> None:
    import pandas

    frame = pandas.read_parquet(index, columns=["clip_id", "quality"])
    assert set(frame["clip_id"]) == CLIPS and frame["quality"][0]["dnsmos_ovr"] == 3.5


def test_polars(index: str) -> None:
    import polars

    frame = polars.scan_parquet(index).filter(polars.col("language") != "it").select("clip_id").collect()
    assert set(frame["clip_id"]) == {clip for clip in CLIPS if not clip.startswith("it")}
    assert polars.read_parquet(index).height == 6


def test_duckdb(index: str) -> None:
    import duckdb

    found = duckdb.sql(f"select clip_id, quality.dnsmos_ovr from '{index}' where language <> 'it'")
    assert found is not None
    assert set(found.fetchall()) == {(clip, 3.5) for clip in CLIPS if not clip.startswith("it")}


def test_hugging_face_datasets(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no call of its own that takes both; with the names that Arrow finds, it is one."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    files = pads.dataset(index).files
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert set(table["clip_id"]) == CLIPS
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert {row["clip_id"] for row in stream} == CLIPS


def test_ray_data(index: str, ray_here: None) -> None:
    import ray

    table = ray.data.read_parquet(index, columns=["clip_id"]).take_all()
    assert {row["clip_id"] for row in table} == CLIPS
