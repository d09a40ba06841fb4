"""Clips of 2 s to 5 min (report 3.5, stage 3): they are drawn in their shares, and whole ones reach the model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from model.checkpoint import load_model
from model.config import read_config
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from training.curriculum.corpus import read_corpus
from training.curriculum.engine import Engine
from training.curriculum.plan.check import check
from training.curriculum.plan.lengths import length_notes
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.sample_stream import SampleStream
from training.curriculum.step import Stepper, read_rows
from training.curriculum.telemetry import Groups
from training.run.world import World
from voxmill.data.shards import TarWriter, latent_bytes, read_latent

SECONDS = [2.0, 4.0, 8.0, 12.0, 29.0, 45.0, 150.0, 300.0]


@pytest.fixture(scope="module")
def lengths(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 clips of these lengths in every mode; the latents of each are those of a real clip over and over."""
    out = shutil.copytree(encoded, tmp_path_factory.mktemp("lengths") / "out")
    clips, latents = pq.read_table(out / "clips.parquet"), pq.read_table(out / "latents.parquet")
    first = latents.to_pylist()[0]
    latent_LD = read_latent(out, *(first[name] for name in ("shard", "offset", "size", "sha256")))
    ids = [f"long{number:04d}" for number in range(len(SECONDS))]
    rows = []
    with TarWriter(out / "latents" / "latents-long.tar") as tar:
        for clip_id, seconds in zip(ids, SECONDS, strict=True):
            num_frames = -(-int(seconds * 100) // 16) * 4  # whole patches of 4 frames and 0.16 s
            long_LD = latent_LD.repeat(-(-num_frames // len(latent_LD)), 1)[:num_frames]
            member = tar.add(f"{clip_id}.safetensors", latent_bytes(long_LD))
            place = {"offset": member.offset, "size": member.size, "sha256": member.sha256, "num_frames": num_frames}
            rows.append(first | place | {"clip_id": clip_id, "shard": "latents/latents-long.tar"})
    pq.write_table(pa.Table.from_pylist(rows, latents.schema), out / "latents.parquet")
    references = [[{"clip_id": other, "similarity": 0.8} for other in ids[1:4] if other != own] for own in ids]
    columns = {"clip_id": ids, "duration": SECONDS, "references": references}
    clips = clips.slice(0, len(SECONDS))
    for name, values in columns.items():
        field = clips.schema.field(name)
        clips = clips.set_column(clips.schema.get_field_index(name), field, pa.array(values, field.type))
    pq.write_table(clips, out / "clips.parquet")
    return out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with room for the positions of the stages."""
    folder = shutil.copytree(CHECKPOINT, tmp_path_factory.mktemp("long") / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    config["lm_config"]["max_position_embeddings"] = 8192
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def recipe(dataset: Path, checkpoint: Path, *overrides: str, name: str = "stage3") -> Recipe:
    own = (
        "engine.dtype=float32",
        "engine.zero=0",
        "validation=null",
        "rows=2",
        "steps=1000",
        "optimizer.warmup_steps=1",
    )
    return load_recipe(name, [f"datasets.main.path={dataset}", f"init={checkpoint}", *own, *overrides])


def test_the_stages_draw_the_lengths_that_the_report_gives_them(lengths: Path, checkpoint: Path) -> None:
    longest = {"stage1": 60, "stage2": 180, "stage3": 300}
    for name, limit in longest.items():
        settings = recipe(lengths, checkpoint, name=name)
        corpus, plan = check(settings)
        assert {seconds for seconds in SECONDS if seconds <= limit} == set(
            corpus.seconds[np.unique(np.concatenate([s.clips for s in plan.streams]))].tolist()
        )
        bounds = sorted(settings.mixture.lengths)
        assert bounds[-1] == limit and sum(settings.mixture.lengths.values()) == pytest.approx(1.0)
        for bound in bounds:
            drawn = sum(plan.seconds[s.name] for s in plan.streams if s.up_to == bound) / sum(plan.seconds.values())
            assert drawn == pytest.approx(settings.mixture.lengths[bound]), (name, bound)


@pytest.mark.slow
def test_five_minutes_reach_the_model(lengths: Path, checkpoint: Path, world: World) -> None:
    settings = recipe(lengths, checkpoint, "max_positions=2400", "packing.positions=2400", "rows=1")
    corpus = read_corpus(settings)
    stream = SampleStream(corpus, settings, TextTokenizer.from_folder(checkpoint))
    config = read_config(checkpoint)
    engine = Engine(load_model(checkpoint, config, dtype=torch.float32), settings, world)
    groups = Groups(corpus, settings)
    seen: dict[float, int] = {}
    while not {2.0, 300.0} <= seen.keys():
        (row,) = stream.next_step()
        seen |= {float(corpus.seconds[s.clip]): int(corpus.patches[s.clip]) for s in row}
        assert stream.step < 100
    while not any(corpus.seconds[s.clip] == 300 for s in row):
        (row,) = stream.next_step()
    # A patch is 0.16 s.
    assert seen[2.0] == 13 and seen[300.0] == 1875
    (mine,), unreadable = read_rows([row], engine.world, stream.reader)
    assert mine.batch is not None and not unreadable
    targets = [int(corpus.patches[s.clip]) for s in row]
    assert len(mine.batch.target_GPD) == sum(targets) and max(targets) == 1875
    result = Stepper(engine, settings, patch_size=4, spike=None, groups=groups)([mine], [], step=0, rate=1e-3)
    assert result.num_patches == sum(targets) and np.isfinite(result.loss) and np.isfinite(result.norm)


def test_check_tells_lengths_that_are_missing_and_those_that_are_repeated(lengths: Path, checkpoint: Path) -> None:
    short = recipe(lengths, checkpoint, "clips.max_seconds=60")
    _, plan = check(short)
    notes = length_notes(short, plan.streams, plan.epochs())
    assert notes == [
        f"mixture.lengths: there are no clips of {where} s; the other lengths get their share"
        for where in ("60 to 180", "180 to 300")
    ]
    # Of 550 s 14 are in clips of up to 10 s; 90 % of the draws go there.
    often = recipe(lengths, checkpoint, "mixture.lengths={10: 0.9, 300: 0.1}")
    _, plan = check(often)
    (note,) = length_notes(often, plan.streams, plan.epochs())
    assert "clips of 2 to 10 s are drawn" in note and "lower mixture.lengths.10 " in note
    evenly = recipe(lengths, checkpoint, "mixture.lengths={60: 0.2, 300: 0.8}")
    _, plan = check(evenly)
    assert not length_notes(evenly, plan.streams, plan.epochs())
