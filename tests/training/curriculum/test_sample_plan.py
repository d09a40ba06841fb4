"""Samples: one clip in every mode, the same for every rank and after every restart, never longer than allowed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from model.sequence.layouts import AUDIO_START, REFERENCE_END, REFERENCE_START
from model.sequence.packing import pack
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from tests.support.runs import through_json
from training.curriculum.corpus import Corpus, read_corpus
from training.curriculum.plan_arrays import plan_arrays
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.sample_order import share
from training.curriculum.sample_plan import REASONS, PlanArrays, PlannedSample, plan_block, plan_sample
from training.curriculum.sample_reader import SampleReader
from training.curriculum.sample_stream import SampleStream
from voxmill.core.errors import UserError
from voxmill.data.description_kinds import DEFAULT_SHARES, DescribedMode, kinds_of
from voxmill.data.records import MODES, Axis, Mode
from voxmill.data.shards import read_latent

TOKENIZER = TextTokenizer.from_folder(CHECKPOINT)


def recipe(encoded: Path, *overrides: str, name: str = "tiny_stage2") -> Recipe:
    return load_recipe(name, [f"datasets.main.path={encoded}", f"init={CHECKPOINT}", *overrides])


@pytest.fixture
def corpus(encoded: Path) -> Corpus:
    return read_corpus(recipe(encoded))


def plan(
    corpus: Corpus, mode: Mode, clip: int = 3, number: int = 0, seed: int = 0, max_positions: int = 250
) -> PlannedSample | str:
    arrays = plan_arrays(corpus)
    return plan_sample(mode, clip, arrays, number=number, seed=seed, max_positions=max_positions)


@pytest.mark.parametrize("mode", MODES)
def test_a_clip_in_every_mode_is_what_the_report_s_table_says(corpus: Corpus, mode: Mode) -> None:
    sample = plan(corpus, mode)
    assert isinstance(sample, PlannedSample)
    made = SampleReader(corpus, TOKENIZER, max_positions=250).layout(sample)
    assert pack([made]).tokens_N.shape[0] == sample.length
    target = corpus.read(3).float()
    assert torch.equal(made.target_GPD, target) and len(target) == corpus.patches[3]
    tokens = made.tokens_T.tolist()
    referenced = mode in ("reference", "controllable")
    assert (tokens[0] == REFERENCE_START) == referenced == (REFERENCE_END in tokens)
    start = tokens.index(REFERENCE_END) + 1 if referenced else 0
    text = corpus.text(3)
    if mode in ("design", "controllable"):
        phrases = [text for axis in kinds_of(mode, DEFAULT_SHARES) for text in corpus.descriptions(3, axis)]
        assert phrases and tokens[start : tokens.index(AUDIO_START)] in [
            TOKENIZER.encode(f"({phrase}){text}") for phrase in phrases
        ]
    else:
        assert tokens[start : tokens.index(AUDIO_START)] == TOKENIZER.encode(text)
    if referenced:
        assert sample.reference in corpus.candidates(3)
        assert torch.equal(made.audio_APD[: -made.num_target], corpus.read(sample.reference).float())


def test_references_and_descriptions_vary_with_the_sample_s_number_alone(corpus: Corpus) -> None:
    samples = [plan(corpus, "controllable", number=number) for number in range(60)]
    assert samples == [plan(corpus, "controllable", number=number) for number in range(60)]
    assert {s.reference for s in samples if isinstance(s, PlannedSample)} == set(corpus.candidates(3))
    assert len({s.description for s in samples if isinstance(s, PlannedSample)}) == 2
    assert samples != [plan(corpus, "controllable", number=number, seed=1) for number in range(60)]


def test_a_reference_that_is_too_long_gives_way_to_one_that_fits(corpus: Corpus) -> None:
    plain = plan(corpus, "basic")
    assert isinstance(plain, PlannedSample)
    shortest = min(corpus.candidates(3), key=lambda clip: corpus.patches[clip])
    room = plain.length + 2 + 2 + int(corpus.patches[shortest])
    for number in range(20):
        sample = plan(corpus, "reference", number=number, max_positions=room)
        assert isinstance(sample, PlannedSample) and corpus.patches[sample.reference] == corpus.patches[shortest]
    assert plan(corpus, "reference", max_positions=room - 1) == "too_many_positions"
    assert plan(corpus, "basic", max_positions=plain.length + 1) == "too_many_positions"


def test_only_verified_descriptions_where_the_recipe_says_so(encoded: Path) -> None:
    every, verified = (read_corpus(recipe(encoded, f"clips.verified={rule}")) for rule in ("null", "{default: pass}"))
    assert every.descriptions(0, "style") == ["slowly", "in a guessed way"]
    assert verified.descriptions(0, "style") == ["slowly"]


def test_kinds_of_descriptions_come_by_their_shares_among_those_that_a_clip_has() -> None:
    # Clips of four kinds: with descriptions of the voice, the delivery and both; without both; of the voice; none.
    axes = [[0, 0, 1, 2, 2, 2], [1, 0], [0], []]
    clips = np.arange(40_000) % 4
    starts = np.cumsum([0, *(len(axes[clip]) for clip in clips)])
    flat = np.concatenate([axes[clip] for clip in clips]).astype(np.int64)
    arrays = PlanArrays(
        seconds=np.ones(len(clips)),
        patches=np.full(len(clips), 5),
        tokens=np.full(len(clips), 7),
        description_starts=starts,
        description_axis=flat,
        description_tokens=np.arange(len(flat)) % 50 + 10,
        reference_starts=np.zeros(len(clips) + 1, np.int64),
        references=np.zeros(0, np.int64),
        language=np.zeros(len(clips), np.int64),
        bases=np.zeros(1, np.int64),
    )
    numbers = np.arange(len(clips))

    def kinds(shares: dict[DescribedMode, dict[Axis, float]]) -> list[np.ndarray]:
        block = plan_block(
            numbers, numbers, "design", arrays, seed=3, max_positions=500, avoid=np.zeros(0, int), shares=shares
        )
        known = block.descriptions >= 0
        assert (block.codes[~known] == REASONS.index("no_description")).all()
        drawn = flat[np.where(known, starts[numbers] + block.descriptions, 0)]
        assert (
            block.lengths[known] == arrays.description_tokens[(starts[numbers] + block.descriptions)[known]] + 5
        ).all()
        return [np.bincount(drawn[known & (clips == kind)], minlength=3) / 10_000 for kind in range(4)]

    one, two, voice, none = kinds({"design": {"design": 1, "both": 2, "style": 1}, "controllable": {"style": 1}})
    assert one == pytest.approx([0.25, 0.25, 0.5], abs=0.015) and two == pytest.approx([0.5, 0.5, 0], abs=0.015)
    assert voice.tolist() == [1, 0, 0] and none.sum() == 0
    one, two, voice, none = kinds({"design": {"both": 1}, "controllable": {"style": 1}})
    assert one.tolist() == [0, 0, 1] and two.sum() == voice.sum() == none.sum() == 0


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ("{design: {design: 0}}", "design: all shares are 0"),
        ("{controllable: {both: -1, style: 2}}", "controllable: shares may not be negative"),
        ("{reference: {style: 1}}", "mixture.descriptions"),
        ("{design: {voice: 1}}", "mixture.descriptions"),
    ],
)
def test_wrong_shares_of_descriptions_are_refused_in_one_line(tmp_path: Path, shares: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        recipe(tmp_path, f"mixture.descriptions={shares}")
    assert "\n" not in str(caught.value)


def test_a_mode_that_is_not_named_shows_the_usual_kinds(tmp_path: Path) -> None:
    shares = recipe(tmp_path, "mixture.descriptions={design: {both: 1}}").mixture.descriptions
    assert shares == {**DEFAULT_SHARES, "design": {"both": 1}}


def keys(rows: list[list[PlannedSample]]) -> list[list[tuple[int, str, int, int | None]]]:
    return [[(s.number, s.mode, s.clip, s.reference) for s in row] for row in rows]


def test_rows_are_bounded_modes_come_as_wanted_and_no_sample_comes_twice(encoded: Path) -> None:
    settings = recipe(encoded, "steps=50")
    stream = SampleStream(read_corpus(settings), settings, TOKENIZER)
    rows = [row for _ in range(50) for row in stream.next_step()]
    assert all(sum(s.length for s in row) <= 512 for row in rows)
    numbers = [(s.stream, s.number) for row in rows for s in row]
    assert len(set(numbers)) == len(numbers)
    drawn = sum(queue.cursor for queue in stream.mixture.queues)
    assert drawn - len(numbers) <= settings.packing.window + stream.skipped.total()
    for name, share_of in stream.shares().items():
        assert share_of.achieved == pytest.approx(share_of.wanted, abs=0.01), name
    assert set(Counter(s.mode for row in rows for s in row)) == set(MODES)


def test_a_run_resumed_anywhere_has_the_same_rows_in_any_world(encoded: Path) -> None:
    settings = recipe(encoded, "steps=24", "rows=12")
    corpus = read_corpus(settings)
    whole = SampleStream(corpus, settings, TOKENIZER)
    reference = [keys(whole.next_step()) for _ in range(24)]
    stream, found = SampleStream(corpus, settings, TOKENIZER), []
    for step, world in enumerate((1, 2, 3, 4, 6, 12) * 4):
        if step % 5 == 2:
            state = through_json(stream.state())
            stream = SampleStream(read_corpus(settings), settings, TOKENIZER)
            stream.restore(state)
        rows = keys(stream.next_step())
        by_rank = [[rows[place] for place in share(12, rank, world)] for rank in range(world)]
        assert len({len(mine) for mine in by_rank}) == 1
        found.append([by_rank[place % world][place // world] for place in range(12)])
    assert found == reference


def test_quarantined_clips_are_not_shown_and_others_take_their_share(encoded: Path) -> None:
    settings = recipe(encoded, "steps=30")
    stream = SampleStream(read_corpus(settings), settings, TOKENIZER)
    stream.quarantine([2, 5])
    rows = [row for _ in range(30) for row in stream.next_step()]
    assert not {s.clip for row in rows for s in row} & {2, 5}
    assert stream.skipped["quarantined"] > 0
    assert all(abs(part.wanted - part.achieved) < 0.02 for part in stream.shares().values())


def test_a_corpus_that_fits_nowhere_ends_in_one_line(encoded: Path) -> None:
    settings = recipe(encoded, "max_positions=5", "packing.positions=512", "clips.max_seconds=20")
    with pytest.raises(UserError, match="max_positions"):
        SampleStream(read_corpus(settings), settings, TOKENIZER).next_step()


def test_latents_of_another_vae_and_damaged_ones_are_refused(encoded: Path, corpus: Corpus) -> None:
    with pytest.raises(UserError, match="another AudioVAE.*replace=true"):
        read_corpus(recipe(encoded), latent_space="0" * 64)
    row = pq.read_table(encoded / "latents.parquet").to_pylist()[0]
    place = {name: row[name] for name in ("shard", "offset", "size")}
    with pytest.raises(ValueError, match="latents.parquet"):
        read_latent(encoded, **place, sha256="0" * 64)
    with pytest.raises(ValueError, match="leaves"):
        read_latent(encoded, **place | {"shard": "../../x.tar"})
