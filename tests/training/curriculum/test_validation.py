"""Validation: held-out clips never enter training, the losses are theirs, and a run learns the same without it."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from model.checkpoint import load_model
from model.config import read_config
from model.sequence.packing import pack
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from tests.support.runs import figures, metrics, train
from training.curriculum.corpus import read_corpus
from training.curriculum.engine import Engine
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.sample_stream import SampleStream
from training.curriculum.step import Stepper, read_rows, row_generator
from training.curriculum.telemetry import Groups
from training.curriculum.validation import NO_STEP, Validation
from training.run.world import World, join_world
from voxmill.core.errors import JobError, UserError
from voxmill.core.tracking import Tracker
from voxmill.data.records import MODES

HELD_OUT = ["en10000", "en10003", "fr10001"]
VALIDATION = f"validation={{every: 2, clips: {HELD_OUT}, listen: 3, max_seconds: 30}}"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with join_world() as found:
        yield found


def recipe(encoded: Path, *overrides: str, name: str = "tiny_stage2") -> Recipe:
    return load_recipe(
        name,
        [f"datasets.main.path={encoded}", f"init={CHECKPOINT}", "rows=2", "engine.zero=2", VALIDATION, *overrides],
    )


def parts(world: World, settings: Recipe) -> tuple[Engine, SampleStream, Stepper, Validation]:
    """What a run has, at its beginning."""
    corpus, tokenizer = read_corpus(settings), TextTokenizer.from_folder(CHECKPOINT)
    config = read_config(CHECKPOINT)
    engine = Engine(load_model(CHECKPOINT, config, dtype=torch.float32), settings, world)
    groups = Groups(corpus, settings)
    assert settings.validation is not None
    validation = Validation(settings.validation, settings, corpus, tokenizer, engine, groups, config)
    stepper = Stepper(engine, settings, patch_size=4, spike=None, groups=groups)
    return engine, SampleStream(corpus, settings, tokenizer), stepper, validation


def test_held_out_clips_are_neither_trained_on_nor_references(encoded: Path) -> None:
    settings = recipe(encoded)
    corpus = read_corpus(settings)
    held = {clip for clip in range(len(corpus)) if corpus.clip_id(clip) in HELD_OUT}
    assert len(held) == 3 and corpus.left_out["held_out"] == 3
    assert set(np.flatnonzero(corpus.held_out_CM.any(axis=1)).tolist()) == held
    stream = SampleStream(corpus, settings, TextTokenizer.from_folder(CHECKPOINT))
    shown = [s for _ in range(60) for row in stream.next_step() for s in row]
    used = {s.clip for s in shown} | {s.reference for s in shown if s.reference is not None}
    assert used == set(range(len(corpus))) - held


def test_a_share_is_held_out_by_the_clips_own_number(encoded: Path) -> None:
    def ids(share: float, *overrides: str) -> set[str]:
        settings = recipe(encoded, f"validation={{every: 2, share: {share}}}", *overrides)
        corpus = read_corpus(settings)
        return {corpus.clip_id(int(clip)) for clip in np.flatnonzero(corpus.held_out_CM.any(axis=1))}

    assert ids(0.2) < ids(0.5) and ids(0.5) == ids(0.5, "seed=7", f"datasets.again={{path: {encoded}}}")
    assert len(ids(0.000001)) == 1 and ids(0.000001) < ids(0.2), "one at least"


def test_recordings_can_be_named_and_unknown_names_are_refused(encoded: Path) -> None:
    corpus = read_corpus(recipe(encoded, "validation={every: 2, clips: [en-1]}"))
    assert corpus.left_out["held_out"] == 8 and not corpus.modes_CM[:8].any()
    with pytest.raises(UserError, match="validation.clips: nobody is no clip and no recording"):
        read_corpus(recipe(encoded, "validation={every: 2, clips: [nobody]}"))


def test_no_sample_is_refused_in_one_line(encoded: Path, world: World) -> None:
    settings = recipe(encoded, "mixture.modes={reference: 1.0}", "validation={every: 2, clips: [en-1]}")
    with pytest.raises(UserError, match="no held-out clip can be used"):  # their references are all held out, too
        parts(world, settings)


def test_the_losses_are_those_of_the_samples_with_the_same_noise(encoded: Path, world: World) -> None:
    settings = recipe(encoded, "packing.positions=512", "validation.listen=0")
    engine, stream, stepper, validation = parts(world, settings)
    found = validation.run(0, None)
    assert found == validation.run(2, None), "the same noise each time"
    by_mode: dict[str, list[torch.Tensor]] = {}
    model = load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32)
    for place, row in enumerate(validation.rows):
        batch = pack([stream.reader.layout(sample) for sample in row])
        generator = row_generator(settings.seed, NO_STEP, place, torch.device("cpu"))
        with torch.no_grad():
            sums_SK = model(batch, generator=generator, progress=1.0, by_sample=True).samples_SK
        for shown, sums_K in zip(row, sums_SK, strict=True):
            by_mode.setdefault(f"mode/{shown.mode}", []).append(sums_K)
    assert set(by_mode) == {f"mode/{mode}" for mode in MODES}
    for name, sums in by_mode.items():
        diffusion, stop, patches, *_ = torch.stack(sums).sum(dim=0).tolist()
        mean = diffusion / (4 * patches) + stop / patches
        assert found.losses[name].loss == pytest.approx(mean, rel=1e-6)
    rows = read_rows(stream.next_step(), engine.world, stream.reader)
    stepper(*rows, step=0, rate=1e-2)
    assert validation.run(3, None).loss != found.loss


@pytest.mark.parametrize(
    ("name", "zero"),
    [
        ("tiny_stage2", 2),
        ("tiny_finetune_lora", 2),
        *(pytest.param("tiny_finetune_lora", zero, marks=pytest.mark.slow) for zero in (0, 1, 3)),
        *(pytest.param("tiny_stage2", zero, marks=pytest.mark.slow) for zero in (0, 1, 3)),
    ],
)
def test_a_run_learns_the_same_with_and_without_it(
    encoded: Path, world: World, tmp_path: Path, zero: int, name: str
) -> None:
    adapters = ("lora.dropout=0.2",) if "lora" in name else ()

    def losses(*, validated: bool) -> list[tuple[float, float]]:
        settings = recipe(encoded, f"engine.zero={zero}", *adapters, name=name)
        engine, stream, stepper, validation = parts(world, settings)
        tracker = Tracker(tmp_path / "out", uri="none", experiment="e", name="n", step=-1)
        torch.manual_seed(5)
        found = []
        for step in range(3):
            if validated and step < 2:
                before = torch.get_rng_state()
                metrics = validation.run(step, tracker)
                assert metrics == validation.run(step, None), "nothing is dropped, the same noise each time"
                assert torch.equal(torch.get_rng_state(), before)
            rows = read_rows(stream.next_step(), engine.world, stream.reader)
            result = stepper(*rows, step=step, rate=1e-3)
            found.append((result.loss, result.norm))
        return found

    assert losses(validated=True) == losses(validated=False)
    spoken = list((tmp_path / "out" / "media").glob("*/*.wav")) if zero < 3 else []
    assert len(spoken) == (2 * 3 + 3 if zero < 3 else 0)


def test_generated_audio_is_kept_with_pictures(encoded: Path, world: World, tmp_path: Path) -> None:
    *_, validation = parts(world, recipe(encoded))
    tracker = Tracker(tmp_path / "out", uri="none", experiment="e", name="n", step=-1)
    validation.run(4, tracker)
    folder = tmp_path / "out" / "media" / "00000004"
    names = {path.name for path in folder.iterdir()}
    modes = ("0-basic", "1-continuation", "2-design")
    assert names == {f"{mode}-{what}" for mode in modes for what in ("made.wav", "recorded.wav", "mel.png")}
    recorded, rate = soundfile.read(folder / "0-basic-recorded.wav")
    assert rate == 48000 and np.abs(recorded).max() > 0
    first = validation.samples[0]
    assert len(recorded) / rate == pytest.approx(float(validation.corpus.patches[first.clip]) * 0.16, rel=0.01)


def test_shards_that_cannot_be_read_are_reported(encoded: Path, world: World) -> None:
    *_, validation = parts(world, recipe(encoded, "validation.listen=0"))
    validation.corpus.datasets[0] = dataclasses.replace(validation.corpus.datasets[0], path=Path("/nowhere"))
    with pytest.raises(JobError, match="can read no held-out clip"):
        validation.run(0, None)


def validated(out: Path) -> list[dict[str, Any]]:
    return [line["validation"] for line in metrics(out) if "validation" in line]


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 3])
def test_two_ranks_validate_as_one_does(encoded: Path, tmp_path: Path, zero: int) -> None:
    """Also an odd number of rows; the script resumes with other settings of when and how it validates."""
    same = ("optimizer.eps=0.001", f"engine.zero={zero}", "packing.positions=512")
    often = f"validation={{every: 1, clips: {HELD_OUT}, listen: 1}}"
    train(encoded, tmp_path / "one", *same, often)
    train(encoded, tmp_path / "two", *same, often, world=2)
    one, two = validated(tmp_path / "one"), validated(tmp_path / "two")
    assert len(one) == len(two) == 8
    for step, (first, second) in enumerate(zip(one, two, strict=True)):
        assert first["patches"] == second["patches"]
        assert json.dumps(sorted(first["losses"])) == json.dumps(sorted(second["losses"]))
        # Later on rounding differs, and what is quantised may fall on the other side.
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-3 if step else 1e-6)
    for first, second in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert set(first["losses"]) == set(second["losses"])
        for name, sums in first["losses"].items():
            assert second["losses"][name] == pytest.approx(sums, rel=1e-3 if first["step"] else 1e-6), name
        assert first["teraflops"] == pytest.approx(second["teraflops"])
    train(encoded, tmp_path / "never", *same, f"validation={{every: 1000, clips: {HELD_OUT}, listen: 0}}")
    assert figures(tmp_path / "never") == figures(tmp_path / "one")
