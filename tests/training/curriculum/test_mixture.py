"""The mixture: wanted shares are met at every moment, every clip once an epoch, exact after a restart."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samples.fabricate import CHECKPOINT
from tests.support.runs import through_json
from training.curriculum.corpus import Corpus, read_corpus
from training.curriculum.mixture import Mixture, Stream, language_shares, streams_of
from training.curriculum.recipe import MixtureConfig, Recipe, load_recipe
from voxmill.core.errors import UserError
from voxmill.data.dataset import Dataset
from voxmill.data.records import MODES

CONFIG = MixtureConfig(modes={"basic": ((0, 0.9), (1, 0.5)), "design": ((0, 0.1), (1, 0.5))})


def streams() -> tuple[list[Stream], "np.ndarray"]:
    lengths = np.random.default_rng(0).lognormal(1.5, 0.8, 1200)
    parts = [("basic", "en", 0, 700, 0.7), ("basic", "fr", 700, 900, 0.3), ("design", "en", 0, 50, 1.0)]
    return [
        Stream(mode, lang, "main", np.arange(a, b), float(lengths[a:b].sum()), share)  # type: ignore[arg-type]
        for mode, lang, a, b, share in parts
    ], lengths


def test_achieved_follows_wanted_along_the_curve() -> None:
    made, lengths = streams()
    mixture = Mixture(made, CONFIG, 0, lengths)
    worst = 0.0
    for number in range(5000):
        mixture.draw(number / 5000)
        worst = max(worst, float(np.abs(mixture.achieved - mixture.wanted).max()))
    assert worst < 2 * lengths.max()
    assert mixture.achieved / mixture.achieved.sum() == pytest.approx([0.49, 0.21, 0.30], abs=0.01)


def test_a_share_of_zero_gives_nothing() -> None:
    made, lengths = streams()
    config = MixtureConfig(modes={"basic": 1.0, "design": ((0.5, 0.0), (1, 0.5))})
    mixture = Mixture(made, config, 0, lengths)
    assert {mixture.draw(0.4).mode for _ in range(500)} == {"basic"}
    assert {mixture.draw(1.0).mode for _ in range(500)} == {"basic", "design"}


def test_every_clip_once_an_epoch_of_its_stream() -> None:
    made, lengths = streams()
    mixture = Mixture(made, CONFIG, 5, lengths)
    drawn: list[list[int]] = [[], [], []]
    while len(drawn[0]) < 1400:
        draw = mixture.draw(0.0)
        drawn[draw.stream].append(draw.clip)
    for stream, clips in zip(made, drawn, strict=True):
        size = len(stream.clips)
        for start in range(0, len(clips) - size + 1, size):
            assert sorted(clips[start : start + size]) == stream.clips.tolist()
    assert mixture.epochs()["basic/en/main"] == 2.0


def test_it_resumes_exactly_from_json() -> None:
    made, lengths = streams()
    mixture = Mixture(made, CONFIG, 5, lengths)
    for number in range(333):
        mixture.draw(number / 1000)
    again = Mixture(made, CONFIG, 5, lengths)
    again.restore(through_json(mixture.state()))
    assert [mixture.draw(0.5) for _ in range(500)] == [again.draw(0.5) for _ in range(500)]
    assert np.array_equal(mixture.achieved, again.achieved)


def test_other_data_than_the_checkpoint_s_are_refused() -> None:
    made, lengths = streams()
    state = Mixture(made, CONFIG, 5, lengths).state()
    with pytest.raises(UserError, match="basic/fr/main had 200"):
        Mixture([made[0], made[2]], CONFIG, 5, lengths).restore(state)


def test_what_is_taken_back_was_not_given() -> None:
    made, lengths = streams()
    mixture = Mixture(made, CONFIG, 0, lengths)
    for _ in range(3000):
        draw = mixture.draw(0.5)
        if draw.clip % 3 == 0:
            mixture.take_back(draw, 0.5)
    assert mixture.achieved / mixture.achieved.sum() == pytest.approx([0.49, 0.21, 0.30], abs=0.01)
    assert mixture.wanted.sum() == pytest.approx(mixture.achieved.sum())


def test_languages_by_temperature() -> None:
    def shares(**kwargs: object) -> list[float]:
        return language_shares([900.0, 90.0, 10.0], MixtureConfig.model_validate({"modes": {"basic": 1}, **kwargs}))

    assert shares() == pytest.approx([0.9, 0.09, 0.01])
    assert shares(temperature=2.0) == pytest.approx([30 / 42.65, 9.487 / 42.65, 3.162 / 42.65], rel=1e-3)
    assert shares(balanced_languages=True) == pytest.approx([1 / 3] * 3)


def recipe(encoded: Path, *overrides: str, name: str = "tiny_stage2") -> Recipe:
    return load_recipe(name, [f"datasets.main.path={encoded}", f"init={CHECKPOINT}", *overrides])


def corpus(encoded: Path, *overrides: str, name: str = "tiny_stage2") -> Corpus:
    return read_corpus(recipe(encoded, *overrides, name=name))


def languages_of(found: Corpus, kept: Any) -> set[str]:
    """As labelled, whatever the dialect."""
    table = Dataset.open(found.datasets[0].path).table(["clip_id", "language"]).to_pylist()
    labels = {row["clip_id"]: row["language"] for row in table}
    return {labels[found.clip_id(int(clip))] for clip in np.flatnonzero(kept)}


def test_the_corpus_counts_what_it_leaves_out(encoded: Path) -> None:
    found = corpus(encoded, "clips.min_seconds=2.5", "clips.languages=[fr]")
    assert found.left_out["too_short"] > 0 and found.left_out["language"] > 0
    kept = found.modes_CM.any(axis=1)
    assert kept.sum() == len(found) - found.left_out["too_short"] - found.left_out["language"]
    assert (found.seconds[kept] >= 2.5).all()
    assert languages_of(found, kept) == {"fr"}
    assert corpus(encoded, name="tiny_stage1").modes_CM[:, [MODES.index("design"), MODES.index("reference")]].sum() == 0


def test_sources_without_clips_are_refused(encoded: Path) -> None:
    with pytest.raises(UserError, match="mixture.modes.basic: no clip.*language 16"):
        streams_of(corpus(encoded, "clips.languages=[de]"), recipe(encoded, "clips.languages=[de]"))
    other = f"datasets.other={{path: {encoded}}}"
    two = recipe(encoded, other)
    assert {stream.dataset for stream in streams_of(read_corpus(two), two)} == {"main", "other"}


def test_balanced_languages_and_weights(encoded: Path) -> None:
    balanced = recipe(encoded, name="tiny_stage3")
    shares = {s.name: s.share_of_mode for s in streams_of(read_corpus(balanced), balanced) if s.mode == "basic"}
    assert shares == pytest.approx({"basic/en/main": 0.5, "basic/fr/main": 0.5})
    weighted = recipe(encoded, f"datasets.other={{path: {encoded}, weight: 3}}")
    shares = {s.name: s.share_of_mode for s in streams_of(read_corpus(weighted), weighted) if s.mode == "basic"}
    assert shares["basic/en/other"] == pytest.approx(3 * shares["basic/en/main"])


def test_shares_by_length_hold_within_each_mode_and_language(encoded: Path) -> None:
    found = corpus(encoded)
    middle = round(float(np.median(found.seconds[:])), 2)
    settings = recipe(encoded, f"mixture.lengths={{{middle}: 0.3, 60: 0.7}}")
    parts = {s.name: s for s in streams_of(found, settings)}
    whole = {s.name: s for s in streams_of(found, recipe(encoded))}
    for name, stream in whole.items():
        short, long = (parts.get(f"{name}/{bound:g}s") for bound in (middle, 60))
        if short is None or long is None:
            # One length alone has the share of both.
            only = short or long
            assert only is not None and only.share_of_mode == pytest.approx(stream.share_of_mode)
            continue
        assert found.seconds[short.clips].max() <= middle < found.seconds[long.clips].min()
        assert sorted([*short.clips, *long.clips]) == sorted(stream.clips)
        assert short.share_of_mode == pytest.approx(0.3 * stream.share_of_mode)
    assert any(f"{name}/60s" in parts and f"{name}/{middle:g}s" in parts for name in whole)
    with pytest.raises(UserError, match="mixture.lengths.100: there is no clip of that length"):
        streams_of(found, recipe(encoded, "mixture.lengths={60: 0.5, 100: 0.5}", "clips.max_seconds=100"))


@pytest.fixture(scope="module")
def spoken(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset with every third clip a song, and all of its French in Cantonese as a classifier tells it."""
    out = shutil.copytree(encoded, tmp_path_factory.mktemp("spoken") / "out")
    table = pq.read_table(out / "clips.parquet")
    for name, labels in (
        ("style", ["song" if number % 3 == 0 else None for number in range(table.num_rows)]),
        ("dialect", ["zh-yue" if language == "fr" else None for language in table["language"].to_pylist()]),
    ):
        values = [label and {"label": label, "probability": None, "reason": ""} for label in labels]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    pq.write_table(table, out / "clips.parquet")
    return out


def test_songs_have_the_share_that_a_recipe_asks_for(spoken: Path) -> None:
    settings = recipe(spoken, "mixture.styles={song: 0.1}")
    whole = {s.name: s for s in streams_of(read_corpus(settings), recipe(spoken))}
    parts = {s.name: s for s in streams_of(read_corpus(settings), settings)}
    song, rest = parts["basic/en/main/song"], parts["basic/en/main"]
    assert song.share_of_mode == pytest.approx(0.1 * whole["basic/en/main"].share_of_mode)
    assert rest.share_of_mode == pytest.approx(0.9 * whole["basic/en/main"].share_of_mode)
    assert sorted([*song.clips, *rest.clips]) == sorted(whole["basic/en/main"].clips)
    assert sum(part.share_of_mode for part in parts.values() if part.mode == "basic") == pytest.approx(1)
    found = corpus(spoken, "clips.styles=[song]")
    assert 0 < found.modes_CM.any(axis=1).sum() <= -(-len(found) // 3) and found.left_out["style"] > 0
    with pytest.raises(UserError, match="mixture.styles.news: there is no clip of that style"):
        streams_of(found, recipe(spoken, "mixture.styles={news: 0.1}"))
    with pytest.raises(UserError, match="no clip of mode basic has one of them"):
        streams_of(corpus(spoken, name="tiny_stage1"), recipe(spoken, "mixture.styles={news: 1}", name="tiny_stage1"))


def test_a_known_dialect_is_drawn_as_a_language_of_its_own(spoken: Path) -> None:
    assert corpus(spoken).languages == ["en", "zh-yue"]
    for language in ("zh-yue", "fr"):
        found = corpus(spoken, f"clips.languages=[{language}]")
        assert languages_of(found, found.modes_CM.any(axis=1)) == {"fr"}


def test_a_dataset_of_an_older_version_has_neither(encoded: Path, tmp_path: Path) -> None:
    out = shutil.copytree(encoded, tmp_path / "out")
    table = pq.read_table(out / "clips.parquet").drop_columns(["dialect", "style", "singing_share"])
    pq.write_table(table, out / "clips.parquet")
    assert corpus(out).languages == corpus(encoded).languages
    assert np.array_equal(corpus(out).modes_CM, corpus(encoded).modes_CM)
