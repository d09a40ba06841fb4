"""Bad data in real shards: reported, never used again; after several bad steps earlier weights are restored."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from model.checkpoint import load_model
from model.config import read_config
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from tests.support.runs import metrics, through_json, train
from training.curriculum.corpus import read_corpus
from training.curriculum.engine import Engine
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.sample_stream import SampleStream
from training.curriculum.step import Stepper, read_rows
from training.run.world import World
from voxmill.data.shards import TarWriter, latent_bytes, read_latent

SMALL_ROWS = (
    "mixture.modes={basic: 1}",
    "packing={positions: 150, window: 2}",
    "max_positions=150",
    "rows=2",
    "steps=8",
    "run.save_every=2",
    "optimizer.learning_rate=1e-4",
)
"""A clip or two a row, so that a bad one takes few others with it."""


def spoil(encoded: Path, folder: Path, clips: Sequence[str], value: float) -> Path:
    """A copy of the dataset in which the latents of these clips hold `value`, in shards that are whole by their index:
    what a broken encoder leaves."""
    shutil.copytree(encoded, folder)
    table = pq.read_table(folder / "latents.parquet")
    rows = table.to_pylist()
    with TarWriter(folder / "latents" / "latents-spoilt.tar") as tar:
        for row in rows:
            if row["clip_id"] in clips:
                place = {key: row[key] for key in ("shard", "offset", "size", "sha256")}
                latent = read_latent(folder, **place).clone()
                latent[1] = value
                member = tar.add(f"{row['clip_id']}.safetensors", latent_bytes(latent))
                row |= {"shard": "latents/latents-spoilt.tar", "offset": member.offset, "size": member.size}
                row |= {"sha256": member.sha256}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "latents.parquet")
    return folder


def settings(encoded: Path, *overrides: str) -> Recipe:
    return load_recipe("tiny_stage2", [f"datasets.main.path={encoded}", f"init={CHECKPOINT}", *SMALL_ROWS, *overrides])


def shown_first_at(encoded: Path, steps: Sequence[int]) -> list[str]:
    """For each of these steps a clip that none before has shown, the first such one of the step. What a run leaves out
    after a bad row is left out here, too."""
    recipe = settings(encoded)
    corpus = read_corpus(recipe)
    stream = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT))
    seen: set[int] = set()
    found = []
    for step in range(max(steps) + 1):
        rows = [[clip for sample in row for clip in sample.clips] for row in stream.next_step()]
        if step in steps:
            victim = next(clip for row in rows for clip in row if clip not in seen)
            found.append(corpus.clip_id(victim))
            stream.quarantine([clip for row in rows if victim in row for clip in row])
        seen |= {clip for row in rows for clip in row}
    return found


@pytest.mark.parametrize("value", [math.nan, pytest.param(1e30, marks=pytest.mark.slow)])
def test_bad_clips_in_a_row_lead_back_to_the_last_good_weights(encoded: Path, tmp_path: Path, value: float) -> None:
    bad = shown_first_at(encoded, [2, 3])
    spoilt = spoil(encoded, tmp_path / "spoilt", bad, value)
    out = tmp_path / "out"
    # Saved after every step: the checkpoint after the first bad step is no good one.
    said = train(spoilt, out, *SMALL_ROWS, "health.roll_back_after=2", "run.save_every=1")
    lines = metrics(out)
    assert [line["step"] for line in lines] == list(range(8)) and all(math.isfinite(line["loss"]) for line in lines)
    assert [line["rolled_back"] for line in lines] == [False] * 3 + [True] + [False] * 4
    for step, clip in zip((2, 3), bad, strict=True):
        assert f"step {step}: quarantined clip {clip}" in said
    assert "step 3: restored the weights of step-00000002; continuing without its clips" in said
    # Past them: the rest of the run has no bad step, and knows what it leaves out.
    state = json.loads((max((out / "checkpoints").glob("step-*")) / "state.json").read_text())
    assert len(state["state"]["stream"]["quarantined"]) == lines[-1]["quarantined"] == lines[3]["quarantined"] >= 2


def test_a_bad_clip_in_the_very_first_row_ends_nothing(encoded: Path, world: World, tmp_path: Path) -> None:
    bad = shown_first_at(encoded, [0])
    recipe = settings(spoil(encoded, tmp_path / "spoilt", bad, math.nan))
    corpus = read_corpus(recipe)
    engine = Engine(load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32), recipe, world)
    stepper = Stepper(engine, recipe, patch_size=4, spike=None)
    stream = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT))
    result = stepper(*read_rows(stream.next_step(), engine.world, stream.reader), step=0, rate=1e-3)
    assert bad[0] in {corpus.clip_id(clip) for clip in result.bad_clips}
    assert math.isfinite(result.norm) and all(v["weight"].isfinite().all() for _, v in engine.state.tensors())


def test_a_spike_is_quarantined_by_the_names_of_its_clips(encoded: Path, world: World, tmp_path: Path) -> None:
    """Large values are finite: only the median of the steps before tells that something is wrong."""
    bad = shown_first_at(encoded, [2])
    recipe = settings(spoil(encoded, tmp_path / "spoilt", bad, 300.0))
    corpus = read_corpus(recipe)
    engine = Engine(load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32), recipe, world)
    stepper = Stepper(engine, recipe, patch_size=4, spike=recipe.health.spike)
    stream = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT))
    for step in range(3):
        rows = read_rows(stream.next_step(), engine.world, stream.reader)
        result = stepper(*rows, step=step, rate=1e-4)
        stepper.history *= stepper.ENOUGH if step == 0 else 1
    named = {corpus.clip_id(clip) for clip in result.bad_clips}
    assert bad[0] in named and math.isfinite(result.loss) and result.loss < 20 * stepper.history[0]
    stream.quarantine(result.bad_clips)
    later = [sample for _ in range(20) for row in stream.next_step() for sample in row]
    assert later and not {clip for sample in later for clip in sample.clips} & set(result.bad_clips)
    assert stream.skipped["quarantined"] > 0


def test_a_quarantined_clip_is_no_reference_either(encoded: Path) -> None:
    recipe = load_recipe(
        "tiny_stage2",
        [f"datasets.main.path={encoded}", f"init={CHECKPOINT}", "mixture.modes={reference: 1}", "steps=100"],
    )
    corpus = read_corpus(recipe)
    stream = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT))
    before = [sample for row in stream.next_step() for sample in row]
    victim = next(sample.reference for sample in before if sample.reference is not None)
    stream.quarantine([victim])
    state = through_json(stream.state())
    other = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT))
    other.restore(state)
    for _ in range(10):
        rows = stream.next_step()
        # What waited is the same after a resume: leaving a candidate out changes no other sample.
        assert rows == other.next_step()
        assert victim not in {clip for row in rows for sample in row for clip in sample.clips}
