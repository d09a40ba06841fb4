"""A step: the loss is a global sum over a global count, a bad row is left out and named, weights stay sound."""

import dataclasses
import math
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from model.checkpoint import load_model
from model.config import read_config
from model.sequence.packing import pack
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from tests.support.saved_state import saved_to
from training.curriculum.corpus import Corpus, read_corpus
from training.curriculum.engine import Engine
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.sample_stream import SampleStream
from training.curriculum.step import Row, Stepper, read_rows, row_generator
from training.run.world import World
from voxmill.core.errors import JobError


@pytest.fixture(scope="module")
def recipe(encoded: Path) -> Recipe:
    return load_recipe(
        "tiny_stage2", [f"datasets.main.path={encoded}", f"init={CHECKPOINT}", "rows=3", "engine.zero=2"]
    )


@pytest.fixture(scope="module")
def engine(world: World, recipe: Recipe) -> Engine:
    return Engine(load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32), recipe, world)


@pytest.fixture
def corpus(recipe: Recipe) -> Corpus:
    return read_corpus(recipe)


def rows_of(engine: Engine, corpus: Corpus, recipe: Recipe, step: int = 0) -> tuple[list[Row], list[int]]:
    stream = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT))
    for _ in range(step):
        stream.next_step()
    return read_rows(stream.next_step(), engine.world, stream.reader)


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: values["weight"] for name, values in engine.state.tensors()}


def test_the_gradient_is_that_of_the_global_mean(engine: Engine, corpus: Corpus, recipe: Recipe) -> None:
    rows, _ = rows_of(engine, corpus, recipe)
    plain = load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32).requires_grad_(True)
    plain.load_state_dict(weights(engine))
    patches = sum(len(row.batch.target_GPD) for row in rows if row.batch)
    total = torch.zeros(())
    for row in rows:
        assert row.batch is not None
        sums = plain(row.batch, generator=row_generator(recipe.seed, 0, row.number, torch.device("cpu")))
        total = total + sums.diffusion / (patches * 4) + sums.stop / patches
    torch.autograd.backward(total)
    norm = torch.stack([p.grad.norm() for p in plain.parameters() if p.grad is not None]).norm()
    result = Stepper(engine, recipe, patch_size=4, spike=None)(rows, [], step=0, rate=0.0)
    assert result.loss == pytest.approx(float(total.detach()), rel=1e-6)
    assert result.norm == pytest.approx(float(norm), rel=1e-5)
    assert result.num_patches == patches and result.audio_seconds == sum(row.seconds for row in rows)


@pytest.mark.parametrize("bad_place", [0, 1, 2])
def test_a_row_that_is_not_finite_is_left_out_and_named(
    engine: Engine, corpus: Corpus, recipe: Recipe, bad_place: int
) -> None:
    stepper = Stepper(engine, recipe, patch_size=4, spike=None)
    stepper(*rows_of(engine, corpus, recipe), step=0, rate=0.0)
    rows, _ = rows_of(engine, corpus, recipe, step=1)
    victim = rows[bad_place]
    reader = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT)).reader
    layouts = [reader.layout(sample) for sample in victim.samples]
    layouts[0].audio_APD[0] = math.nan
    victim.batch = pack(layouts)
    before = weights(engine)
    result = stepper(rows, [], step=1, rate=1e-3)
    assert set(result.bad_clips) == {clip for sample in victim.samples for clip in sample.clips}
    assert math.isfinite(result.loss) and math.isfinite(result.norm)
    good = [row.batch for row in rows if row is not victim]
    assert result.num_patches == sum(len(batch.target_GPD) for batch in good if batch)
    after = weights(engine)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert any(not tensor.equal(before[name]) for name, tensor in after.items())


def test_a_spike_is_a_bad_row_once_enough_is_known(engine: Engine, corpus: Corpus, recipe: Recipe) -> None:
    stepper = Stepper(engine, recipe, patch_size=4, spike=3.0)
    rows, unreadable = rows_of(engine, corpus, recipe)
    usual = stepper(rows, unreadable, step=0, rate=0.0).loss
    assert rows[1].batch is not None
    rows[1].batch.target_GPD.mul_(30.0)
    assert not stepper(rows, unreadable, step=0, rate=0.0).bad_clips
    stepper.history = [usual] * Stepper.ENOUGH
    result = stepper(rows, unreadable, step=0, rate=0.0)
    assert set(result.bad_clips) == {clip for sample in rows[1].samples for clip in sample.clips}


def test_a_damaged_shard_is_named_counted_and_skipped(
    engine: Engine, corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    stream = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT))
    step = stream.next_step()
    victim = step[0][0].clip
    copy = Path(shutil.copytree(corpus.datasets[0].path, tmp_path / "copy"))
    (place,) = [
        row for row in pq.read_table(copy / "latents.parquet").to_pylist() if row["clip_id"] == corpus.clip_id(victim)
    ]
    with open(copy / place["shard"], "r+b") as shard:
        shard.seek(place["offset"] + place["size"] // 2)
        shard.write(b"torn")
    corpus.datasets[0] = dataclasses.replace(corpus.datasets[0], path=copy)
    rows, unreadable = read_rows(step, engine.world, stream.reader)
    assert set(unreadable) == {victim}
    kept = {sample.clip for row in rows for sample in row.samples if sample.reference != victim}
    assert victim not in kept
    result = Stepper(engine, recipe, patch_size=4, spike=None)(rows, unreadable, step=0, rate=0.0)
    assert result.unreadable == [victim] and math.isfinite(result.loss)


def test_nothing_to_read_ends_the_run(engine: Engine, corpus: Corpus, recipe: Recipe) -> None:
    rows, _ = rows_of(engine, corpus, recipe)
    empty = [Row(row.number, [], None, 0.0) for row in rows]
    with pytest.raises(JobError, match="no clip that can be read"):
        Stepper(engine, recipe, patch_size=4, spike=None)(empty, [], step=0, rate=0.0)


def test_state_goes_out_and_in_whole(engine: Engine, corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    stepper = Stepper(engine, recipe, patch_size=4, spike=None)
    rows = rows_of(engine, corpus, recipe)[0]
    engine.state.restore(saved_to(tmp_path, engine.state), 0)
    stepper(rows, [], step=0, rate=1e-3)
    saved = saved_to(tmp_path, engine.state)
    assert any(tensor.abs().max() > 0 for _, tensor in saved.whole("exp_avg_sq"))
    first = [stepper(rows, [], step=step, rate=1e-3).loss for step in (1, 2)]
    engine.state.restore(saved, 1)
    assert [stepper(rows, [], step=step, rate=1e-3).loss for step in (1, 2)] == first
