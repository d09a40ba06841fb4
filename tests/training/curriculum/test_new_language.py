"""A new language: replayed data in their share, and how much of the old ones is forgotten."""

import signal
from pathlib import Path

import numpy as np
import pytest

from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT, add_latents, rows, write_dataset
from tests.support.runs import metrics, stop, train
from training.curriculum.corpus import read_corpus
from training.curriculum.mixture import stream_shares, streams_of
from training.curriculum.recipe import MixtureConfig, Recipe, load_recipe
from training.curriculum.sample_stream import SampleStream
from voxmill.core.errors import UserError
from voxmill.data.records import MODES

NAME = "tiny_finetune_language"


@pytest.fixture(scope="module")
def datasets(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The new language is Italian; the model knew French and English, and Spanish of a third dataset."""
    made = {"new": rows(("it-1",), clips_each=3), "old": rows(("es-1",), clips_each=2)}
    paths = {name: add_latents(write_dataset(tmp_path_factory.mktemp(name), some)) for name, some in made.items()}
    return {"new": paths["new"], "base": encoded, "old": paths["old"]}


def overrides(datasets: dict[str, Path], *more: str) -> list[str]:
    paths = [f"datasets.{name}.path={path}" for name, path in datasets.items()]
    watched = ["datasets.old.role=validate"] if "old" in datasets else []
    return [*paths, *watched, f"init={CHECKPOINT}", "validation.share=0.2", *more]


def recipe(datasets: dict[str, Path], *more: str) -> Recipe:
    return load_recipe(NAME, overrides(datasets, *more))


def test_replayed_data_have_their_share_whatever_their_hours(datasets: dict[str, Path]) -> None:
    for share in (0.1, 0.3):
        settings = recipe(datasets, f"datasets.base.share={share}")
        corpus = read_corpus(settings)
        stream = SampleStream(corpus, settings, TextTokenizer.from_folder(CHECKPOINT))
        seconds = np.zeros(3)
        for _ in range(60):
            for sample in [s for row in stream.next_step() for s in row]:
                seconds[corpus.dataset[sample.clip]] += corpus.seconds[sample.clip]
        assert seconds / seconds.sum() == pytest.approx([1 - share, share, 0.0], abs=0.02)
        for mode in ("basic", "reference"):
            parts = {s.dataset: 0.0 for s in streams_of(corpus, settings)}
            for s in streams_of(corpus, settings):
                parts[s.dataset] += s.share_of_mode * (s.mode == mode)
            assert parts == pytest.approx({"new": 1 - share, "base": share})


def test_shares_by_hand() -> None:
    # Languages 0 and 1; dataset 0 has both, 1 and 2 have one each. Hours by language and dataset.
    hours = {0: {0: 3.0, 1: 9.0}, 1: {0: 1.0, 2: 4.0}}
    config = MixtureConfig(modes={"basic": 1.0})
    as_there_is = {(0, 0): 3 / 17, (0, 1): 9 / 17, (1, 0): 1 / 17, (1, 2): 4 / 17}
    assert stream_shares(hours, [None, None, None], config) == pytest.approx(as_there_is)
    one = {(0, 0): 0.15, (1, 0): 0.05, (0, 1): 0.8 * 9 / 13, (1, 2): 0.8 * 4 / 13}
    assert stream_shares(hours, [0.2, None, None], config) == pytest.approx(one)
    # A dataset that has no clip of the mode leaves its share to the others, in proportion.
    assert stream_shares({0: {0: 3.0, 1: 9.0}}, [0.2, None, 0.5], config) == pytest.approx(
        {(0, 0): 0.2 / 0.5, (0, 1): 0.3 / 0.5}
    )
    assert stream_shares({0: {1: 9.0}}, [0.2, None, None], config) == {(0, 1): 1.0}
    balanced = MixtureConfig(modes={"basic": 1.0}, balanced_languages=True)
    assert stream_shares(hours, [0.2, None, None], balanced)[1, 0] == pytest.approx(0.1)


def test_every_known_language_and_dataset_has_held_out_clips(datasets: dict[str, Path]) -> None:
    settings = recipe(datasets, "validation.share=0.000001")
    corpus = read_corpus(settings)
    held = np.flatnonzero(corpus.held_out_CM.any(axis=1))
    kinds = [(corpus.datasets[corpus.dataset[c]].name, corpus.languages[corpus.language[c]]) for c in held]
    assert sorted(set(kinds)) == [("base", "en"), ("base", "fr"), ("new", "it"), ("old", "es")]
    assert kinds.count(("old", "es")) == 2 and len(kinds) == 5
    assert {s.dataset for s in streams_of(corpus, settings)} == {"new", "base"}
    # Clips of a dataset that is only validated are each other's references, and no one else's.
    assert corpus.held_out_CM[held, MODES.index("reference")].sum() >= 2
    for clip in range(len(corpus)):
        barred = {int(c) for c in held if corpus.datasets[corpus.dataset[c]].name != "old"}
        assert not barred & set(corpus.candidates(clip))
        assert {int(corpus.dataset[c]) for c in corpus.candidates(clip)} <= {int(corpus.dataset[clip])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("datasets.old.share=0.1", "datasets.old.share is set, but with role validate"),
        ("validation=null", "datasets.old.role is validate, but nothing is validated"),
        ("datasets.new.role=validate", "role validate; name one of role train"),
        ("datasets.new.share=0.8", "shares add up to 1.1"),
        ("datasets.base.share=1.0", "less than 1"),
        ("datasets.base.role=replayed", "replay"),
        ("clips.languages=[it, en, fr]", "datasets.old: none of its clips enters"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(datasets: dict[str, Path], change: str, message: str) -> None:
    more = ["datasets.base.role=validate"] if change == "datasets.new.role=validate" else []
    if more:
        more.append("datasets.base.share=null")
    with pytest.raises(UserError, match=message):
        streams_of(read_corpus(settings := recipe(datasets, change, *more)), settings)


def test_a_run_reads_what_it_forgets(datasets: dict[str, Path], tmp_path: Path) -> None:
    common = ["validation.every=2", "optimizer.learning_rate=0.003", "run.save_every=2", "steps=4", "rows=2"]
    out = tmp_path / "out"
    arguments = overrides(datasets, *common)
    # `train` names a dataset of its own.
    said = train(datasets["new"], out, "datasets.main.role=validate", *arguments, recipe=NAME)
    lines = metrics(out)
    before = lines[0]["validation_before"]
    assert "validation_before" not in lines[1] and "forgetting" not in before
    known = {"en", "fr", "es"}
    for line in (lines[1], lines[3]):
        found = line["validation"]
        now = found["losses"]
        # `main` is the new language itself, only validated.
        assert set(found["forgetting"]) == known | {"it", "source/base", "source/old", "source/main"}
        for language in known:
            change = now[f"known/{language}"]["loss"] - before["losses"][f"known/{language}"]["loss"]
            assert found["forgetting"][language] == pytest.approx(change) and change != 0
        assert now["known/es"] == now["language/es"] == now["source/old"]
    assert "known/es" not in lines[0]["losses"] and "language/es" not in lines[0]["losses"]
    assert f"held-out loss before training {before['loss']:.4f}" in said and "forgetting en " in said


@pytest.mark.slow
def test_a_resumed_run_measures_against_its_own_beginning(datasets: dict[str, Path], tmp_path: Path) -> None:
    more = [*overrides(datasets, "validation.every=2", "rows=2"), "datasets.main.role=validate"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(datasets["new"], whole, *more, recipe=NAME)
    stop(datasets["new"], parts, *more, after=3, how=signal.SIGKILL, recipe=NAME)
    train(datasets["new"], parts, *more, recipe=NAME)
    first, second = ([line for line in metrics(out)] for out in (whole, parts))
    assert [line.get("validation") for line in first] == [line.get("validation") for line in second]
    assert first[0]["validation_before"] == second[0]["validation_before"]
