"""Summaries of buckets: small, exact sums whatever the order, and quantiles as close as their grids say."""

import functools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.report.bucket_summary import DNSMOS, GRIDS, MAX_LICENCES, MAX_SPEAKERS, BucketSummary, merge
from pipelines.report.grids import Counts, Grid, rough_cells, rough_median
from pipelines.report.table_summary import summarize
from tests.pipelines.report.made_run import make_out
from voxmill.data.records import from_json_text, to_json_text
from voxmill.data.schemas import CLIPS, RECORDINGS, REJECTED

Tables = tuple[pa.Table, pa.Table, pa.Table]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    out = make_out(tmp_path_factory.mktemp("run") / "out", 40, 24)
    clips, rejected, recordings = (
        pq.read_table(Path(out) / f"{name}.parquet") for name in ("clips", "rejected", "recordings")
    )
    return clips, rejected, recordings


def _parts(tables: Tables, count: int, rng: np.random.Generator) -> list[BucketSummary]:
    """The tables' rows dealt to so many buckets."""
    dealt = [rng.integers(0, count, table.num_rows) for table in tables]
    return [
        summarize(*(table.filter(pa.array(of == bucket)) for table, of in zip(tables, dealt, strict=True)))
        for bucket in range(count)
    ]


def test_merged_buckets_are_the_whole_in_any_order(tables: Tables) -> None:
    whole = summarize(*tables)
    assert whole.kept.count == 40 and whole.rejected.count == 24 and whole.num_lost == 3 and whole.num_speakers == 4
    parts = _parts(tables, 6, np.random.default_rng(1))
    for seed in range(20):
        shuffled = random.Random(seed).sample(parts, len(parts))
        middle = 1 + seed % 5
        left, right = functools.reduce(merge, shuffled[:middle]), functools.reduce(merge, shuffled[middle:])
        assert merge(left, right) == whole
    assert merge(whole, BucketSummary()) == whole == merge(BucketSummary(), whole)


def test_it_is_json_and_small(tables: Tables) -> None:
    clips, rejected, recordings = tables
    many = [pa.concat_tables([table] * 100) for table in (clips, rejected, recordings)]
    text = to_json_text(summarize(many[0], many[1], many[2], buckets=1_000))
    assert len(text) < 50_000
    assert from_json_text(BucketSummary, text) == summarize(many[0], many[1], many[2], buckets=1_000)


def test_empty_and_older_tables_count_as_nothing(tables: Tables) -> None:
    empty = summarize(CLIPS.empty_table(), REJECTED.empty_table(), RECORDINGS.empty_table())
    untyped = [pa.table({name: pa.nulls(0) for name in schema.names}) for schema in (CLIPS, REJECTED, RECORDINGS)]
    assert empty == summarize(*untyped) and merge(empty, empty) == empty
    assert empty.kept.count == empty.num_lost == empty.num_speakers == 0
    # A part that an older version wrote lacks columns, also within structs.
    clips = tables[0].drop_columns(["descriptions", "expressiveness", "gender", "dialect", "style", "singing_share"])
    quality = pa.StructArray.from_arrays([pa.array([3.0] * 40)], ["dnsmos_sig"])
    clips = clips.set_column(clips.column_names.index("quality"), "quality", quality)
    older = summarize(clips, tables[1], tables[2])
    assert older.kept == summarize(*tables).kept and older.measure(DNSMOS).kept == Counts() and not older.answers


def test_sums_do_not_round() -> None:
    """In floats, a million lengths of 0.1 s give another sum in every order."""
    clips = pa.table({"clip_id": [f"c{i}" for i in range(30)], "duration": [0.1] * 10 + [1e6] * 10 + [0.3] * 10})
    nothing = pa.table({"clip_id": pa.nulls(0)})
    parts = [summarize(clips.slice(i, 1), nothing, nothing) for i in range(30)]
    for seed in range(3):
        total = functools.reduce(merge, random.Random(seed).sample(parts, 30))
        assert total.kept.microseconds == 10_000_004_000_000 and total.kept.seconds == 10_000_004.0


def test_a_dropped_clip_without_audio_is_an_example_only_where_there_is_no_other(tables: Tables) -> None:
    rows = {row.reason: row for row in summarize(*tables).dropped}
    named = {clip.clip_id for row in rows.values() for clip in (*row.drawn, row.nearest, row.farthest) if clip}
    without = set(tables[1].filter(pa.compute.is_null(tables[1]["shard"]))["clip_id"].to_pylist())
    assert without and not named & without
    ovr = rows["dnsmos_ovr"]
    assert ovr.nearest is not None and ovr.farthest is not None
    assert (ovr.nearest.value, ovr.farthest.value) == (2.9, 2.3)
    assert rough_median(dict(ovr.values)) == pytest.approx(2.6, rel=0.016)


def test_what_strangers_name_is_bounded() -> None:
    count = 3_000
    clips = pa.table(
        {
            "clip_id": [f"c{i}" for i in range(count)],
            "duration": [1.0] * count,
            "licence": [f"licence {i:05d}" for i in range(count)],
            "speaker": [f"speaker {i}" for i in range(count)],
            "text": ["long " * 1_000] * count,
        }
    )
    nothing = pa.table({"clip_id": pa.nulls(0)})
    whole = summarize(clips, nothing, nothing)
    halves = merge(
        summarize(clips.slice(0, 2_000), nothing, nothing), summarize(clips.slice(1_000, 2_000), nothing, nothing)
    )
    assert len(whole.licences) == MAX_LICENCES and len(whole.speakers) == MAX_SPEAKERS
    assert whole.num_speakers == pytest.approx(count, rel=0.1) and halves.speakers == whole.speakers
    assert all(len(example.text) < 700 for example in whole.examples)


def test_quantiles_are_numpy_s_to_half_a_step() -> None:
    rng, grid = np.random.default_rng(3), GRIDS[DNSMOS]
    for size in (1, 2, 7, 100, 1_001):
        values = rng.normal(3.2, 0.4, size).clip(1, 4.99)
        for share in (0.0, 0.05, 0.5, 0.995, 1.0):
            expected = np.quantile(values, share)
            found = grid.quantile(grid.count(values), share)
            lower, upper = (np.quantile(values, share, method=method) for method in ("lower", "higher"))
            assert found is not None
            assert lower - grid.step / 2 - 1e-9 <= found <= upper + grid.step / 2 + 1e-9, (size, share, expected)
    assert grid.quantile(Counts(), 0.5) is None
    # 2.3 / 0.01 is 229.99...: it belongs to its own cell all the same.
    assert [int(Grid(0.0, 0.01, 400).cell(np.array([value]))[0]) for value in (2.3, 0.57, 0.29)] == [230, 57, 29]
    assert Grid(0.0, 1.0, 3).count(np.array([-5.0, np.nan, 99.0, np.inf])) == Counts(0, (1, 0, 1))


def test_rough_cells_keep_the_order_and_the_scale() -> None:
    values = np.array([-1e9, -3.1, -0.02, 0.0, 1e-30, 0.04, 0.97, 31.0, 22_050.0])
    cells = rough_cells(values)
    assert (np.diff(cells) > 0).all()
    for value in values:
        assert rough_median({int(rough_cells(np.array([value]))[0]): 1}) == pytest.approx(value, rel=0.016)
    assert rough_median({}) is None
