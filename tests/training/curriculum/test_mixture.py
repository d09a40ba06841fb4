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
from training.curriculum.mixture import language_shares, streams_of
from training.curriculum.recipe import MixtureConfig, Recipe, load_recipe
from training.curriculum.sample_draws import Curve, DrawnStream, Mixture, NothingUsable
from training.curriculum.sample_plan import PlanArrays
from voxmill.core.errors import UserError
from voxmill.data.dataset import Dataset
from voxmill.data.records import MODES

BASIC, DESIGN = ((0, 0.9), (1, 0.5)), ((0, 0.1), (1, 0.5))
LENGTHS = np.random.default_rng(0).lognormal(1.5, 0.8, 1200)


def streams(basic: Curve = BASIC, design: Curve = DESIGN) -> list[DrawnStream]:
    return [
        DrawnStream("basic/en/main", "basic", "en", np.arange(700), 0.7, basic),
        DrawnStream("basic/fr/main", "basic", "fr", np.arange(700, 900), 0.3, basic),
        DrawnStream("design/en/main", "design", "en", np.arange(50), 1.0, design),
    ]


def arrays(tokens: "np.ndarray | None" = None) -> PlanArrays:
    """Every clip has a text of three tokens, one description and no reference."""
    count = len(LENGTHS)
    return PlanArrays(
        seconds=LENGTHS,
        patches=np.ceil(LENGTHS * 6.25).astype(np.int64),
        tokens=np.full(count, 3) if tokens is None else tokens,
        description_starts=np.arange(count + 1),
        description_axis=np.zeros(count, dtype=np.uint8),
        description_tokens=np.full(count, 9),
        reference_starts=np.zeros(count + 1, dtype=np.int64),
        references=np.empty(0, dtype=np.int64),
        language=np.zeros(count, dtype=np.int64),
        bases=np.zeros(1, dtype=np.int64),
    )


def mixture_of(made: list[DrawnStream], seed: int = 0, known: PlanArrays | None = None) -> Mixture:
    return Mixture(made, known or arrays(), seed=seed, max_positions=4096)


def test_achieved_follows_wanted_along_the_curve() -> None:
    mixture, worst = mixture_of(streams()), 0.0
    for step in range(500):
        mixture.begin(step / 500)
        for _ in range(10):
            mixture.draw()
            worst = max(worst, float(np.abs(mixture.achieved - mixture.wanted).max()))
    assert worst < LENGTHS.max()
    assert mixture.achieved / mixture.achieved.sum() == pytest.approx([0.49, 0.21, 0.30], abs=0.01)


def test_many_streams_with_small_shares_stay_within_a_clip_each() -> None:
    """Sixty streams from half of all seconds down to a ten-thousandth."""
    shares = np.geomspace(0.5, 1e-4, 60)
    made = [
        DrawnStream(f"basic/{number}", "basic", "en", np.arange(number * 20, number * 20 + 20), share, 1.0)
        for number, share in enumerate(shares / shares.sum())
    ]
    mixture = mixture_of(made)
    worst = np.zeros(60)
    for _ in range(300):
        mixture.begin(0.5)
        for _ in range(20):
            mixture.draw()
        worst = np.maximum(worst, np.abs(mixture.achieved - mixture.wanted))
    assert (worst < LENGTHS.max()).all()


def test_a_share_of_zero_gives_nothing() -> None:
    mixture = mixture_of(streams(1.0, ((0.5, 0.0), (1, 0.5))))
    for progress, modes in ((0.4, {"basic"}), (1.0, {"basic", "design"})):
        mixture.begin(progress)
        assert {mixture.draw().mode for _ in range(500)} == modes


def test_every_clip_once_an_epoch_of_its_stream() -> None:
    made = streams()
    mixture = mixture_of(made, seed=5)
    mixture.begin(0.0)
    drawn: list[list[int]] = [[], [], []]
    while len(drawn[0]) < 1400:
        sample = mixture.draw()
        drawn[sample.stream].append(sample.clip)
    for stream, clips in zip(made, drawn, strict=True):
        size = len(stream.clips)
        for start in range(0, len(clips) - size + 1, size):
            assert sorted(clips[start : start + size]) == stream.clips.tolist()
    assert mixture.epochs()["basic/en/main"] == 2.0


def test_it_resumes_exactly_from_json() -> None:
    mixture = mixture_of(streams(), seed=5)
    for step in range(33):
        mixture.begin(step / 100)
        for _ in range(10):
            mixture.draw()
    again = mixture_of(streams(), seed=5)
    again.restore(through_json(mixture.state()))
    for one in (mixture, again):
        one.begin(0.5)
    assert [mixture.draw() for _ in range(500)] == [again.draw() for _ in range(500)]
    assert np.array_equal(mixture.achieved, again.achieved)
    assert mixture.state() == again.state()


def test_other_data_than_the_checkpoint_s_are_refused() -> None:
    made = streams()
    state = mixture_of(made).state()
    with pytest.raises(UserError, match="basic/fr/main had 200"):
        mixture_of([made[0], made[2]]).restore(state)


def test_what_cannot_be_used_counts_for_no_stream() -> None:
    """Every third clip has no text: the others get the shares."""
    tokens = np.where(np.arange(len(LENGTHS)) % 3 == 0, 0, 3)
    mixture = mixture_of(streams(), known=arrays(tokens))
    mixture.begin(0.5)
    drawn = [mixture.draw() for _ in range(3000)]
    assert all(sample.clip % 3 for sample in drawn)
    passed = sum(queue.cursor for queue in mixture.queues)
    assert mixture.skipped == {"no_text": passed - 3000} and passed == pytest.approx(4500, rel=0.02)
    assert mixture.achieved / mixture.achieved.sum() == pytest.approx([0.49, 0.21, 0.30], abs=0.01)
    assert mixture.wanted.sum() == pytest.approx(mixture.achieved.sum())


def test_a_stream_without_a_usable_sample_names_its_reasons() -> None:
    mixture = mixture_of(streams(), known=arrays(np.zeros(len(LENGTHS), dtype=np.int64)))
    with pytest.raises(NothingUsable) as caught:
        mixture.begin(0.0)
    assert list(caught.value.examples) == ["no_text"]


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
    parts = {s.name: s for s in streams_of(read_corpus(settings), settings)}
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
    # A length without clips leaves its share to the others: the shipped stages name lengths that a dataset may lack.
    longer = recipe(encoded, "mixture.lengths={60: 0.5, 100: 0.5}", "clips.max_seconds=100")
    assert [s.share_of_mode for s in streams_of(read_corpus(longer), longer)] == [
        s.share_of_mode for s in whole.values()
    ]


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
