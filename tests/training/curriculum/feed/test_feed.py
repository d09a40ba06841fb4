"""The feed gives what planning and reading in one process give, ahead of it, and its process ends with its rank."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from tests.support.runs import through_json
from training.curriculum.corpus import Corpus, read_corpus
from training.curriculum.feed.feed import Feed, FeedStep
from training.curriculum.feed.planner import Ask, PlanInputs, Planner, Restart, StepPlan
from training.curriculum.plan_arrays import drawn_streams, plan_arrays, settings_of_plan
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.sample_draws import MixtureState
from training.curriculum.sample_plan import PlannedSample
from training.curriculum.sample_stream import SampleStream
from training.curriculum.step import build_rows
from training.run.world import World
from voxmill.core.errors import JobError, UserError

TOKENIZER = TextTokenizer.from_folder(CHECKPOINT)
ALONE = World(0, 1, torch.device("cpu"))
Rows = list[list[PlannedSample]]


def recipe_of(encoded: Path, *overrides: str) -> Recipe:
    fixed = (f"datasets.main.path={encoded}", f"init={CHECKPOINT}", "steps=12", "rows=4", "feed.ahead=3")
    return load_recipe("tiny_stage2", [*fixed, *overrides])


@pytest.fixture(scope="module")
def recipe(encoded: Path) -> Recipe:
    return recipe_of(encoded)


@pytest.fixture(scope="module")
def corpus(recipe: Recipe) -> Corpus:
    return read_corpus(recipe)


@pytest.fixture
def feed(corpus: Corpus, recipe: Recipe) -> Iterator[Feed]:
    made = Feed(corpus, recipe, TOKENIZER, ALONE)
    yield made
    made.close()


def planner_of(feed: Feed) -> psutil.Process:
    process = feed._planner._process
    assert process is not None
    return psutil.Process(process.pid)


def rows_of(step: FeedStep) -> Rows:
    return [row.samples for row in step.rows]


def test_steps_and_states_are_those_of_one_process_through_a_quarantine_and_a_resume(
    corpus: Corpus, recipe: Recipe, feed: Feed
) -> None:
    stream = SampleStream(corpus, recipe, TOKENIZER)
    assert feed.state() == stream.state()
    for step in range(8):
        planned = stream.next_step()
        given = feed.next_step()
        assert rows_of(given) == planned and feed.state() == stream.state() and feed.step == step + 1
        ((expected, *_), _) = build_rows([(0, planned[0])], stream.reader)
        assert given.rows[0].batch is not None and expected.batch is not None
        assert torch.equal(given.rows[0].batch.tokens_N, expected.batch.tokens_N)
        assert torch.equal(given.rows[0].batch.target_GPD, expected.batch.target_GPD)
        if step in (2, 5):
            # Steps with these clips are ready by now.
            bad = planned[1][0].clips
            for one in (stream, feed):
                one.quarantine(bad)
            assert set(bad) <= set(feed.quarantined) and feed.state() == stream.state()
        if step in (0, 5):
            state = through_json(feed.state())
            feed.restore(state)
    assert feed.shares() == stream.shares()
    for _ in range(4):
        samples = [sample for row in rows_of(feed.next_step()) for sample in row]
        assert not {clip for sample in samples for clip in sample.clips} & set(feed.quarantined)


def test_a_process_plans_for_all_ranks_of_its_node_and_once(corpus: Corpus, recipe: Recipe) -> None:
    reference = [stream.next_step() for stream in [SampleStream(corpus, recipe, TOKENIZER)] for _ in range(4)]
    arrays, settings = plan_arrays(corpus), settings_of_plan(recipe)
    for world, node in ((1, [0]), (2, [0, 1]), (4, [2, 3])):
        planner = Planner(PlanInputs(drawn_streams(corpus, recipe), arrays, settings, world, len(node)))
        # One rank asks ahead of the other.
        questions = [(rank, step) for step in range(4) for rank in node if rank == node[0]]
        questions += [(rank, step) for step in range(4) for rank in node[1:]]
        for rank, step in questions:
            answer = planner.answer(rank, Ask(0, step))
            assert isinstance(answer, StepPlan)
            assert answer.rows == [(number, reference[step][number]) for number in range(rank, 4, world)]
        assert not planner._steps, "what all have is dropped"


def test_ranks_that_restart_one_after_another_get_the_same(corpus: Corpus, recipe: Recipe) -> None:
    arrays, settings = plan_arrays(corpus), settings_of_plan(recipe)
    planner = Planner(PlanInputs(drawn_streams(corpus, recipe), arrays, settings, 2, 2))
    first, other = (planner.answer(rank, Ask(0, 0)) for rank in (0, 1))
    assert isinstance(first, StepPlan) and isinstance(other, StepPlan)
    planner.plan_ahead()
    victim = first.rows[0][1][0].clip
    again = Restart(1, first.state, (victim,))
    state = planner.answer(0, again)
    ahead = planner.answer(0, Ask(1, 1))
    # The other rank still reads ahead, and then restarts, too.
    assert type(planner.answer(1, Ask(0, 1))).__name__ == "Stale"
    assert planner.answer(1, again) == state
    mate = planner.answer(1, Ask(1, 1))
    assert isinstance(ahead, StepPlan) and isinstance(mate, StepPlan) and ahead.state == mate.state
    stream = SampleStream(corpus, recipe, TOKENIZER)
    stream.next_step()
    stream.quarantine([victim])
    rows = stream.next_step()
    assert sorted(ahead.rows + mate.rows) == list(enumerate(rows))


def test_signals_to_a_job_do_not_reach_it_and_its_death_is_an_error(feed: Feed) -> None:
    process = planner_of(feed)
    feed.next_step()
    assert os.getpgid(process.pid) != os.getpgid(0), "not in the group of a terminal's or a launcher's signals"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        process.send_signal(number)
    for _ in range(5):
        feed.next_step()
    assert process.is_running()
    process.kill()
    with pytest.raises(JobError, match=r"the planning process of this node has ended by SIGKILL"):
        for _ in range(6):
            feed.next_step()


def test_what_the_process_cannot_plan_is_the_run_s_error(encoded: Path) -> None:
    tight = recipe_of(encoded, "max_positions=5", "packing.positions=512", "clips.max_seconds=20")
    feed = Feed(read_corpus(tight), tight, TOKENIZER, ALONE)
    try:
        with pytest.raises(
            UserError, match=r"10000 samples in a row cannot be used: too_many_positions \(clip [a-z0-9]+"
        ):
            feed.next_step()
    finally:
        feed.close()


def test_a_state_of_other_data_is_refused_and_the_process_goes_on(corpus: Corpus, recipe: Recipe, feed: Feed) -> None:
    state = feed.state()
    other = dict(state.mixture.streams)
    other.pop(next(iter(other)))
    with pytest.raises(UserError, match="the data changed since the checkpoint"):
        feed.restore(dataclasses.replace(state, mixture=MixtureState(streams=other)))
    feed.restore(state)
    assert rows_of(feed.next_step()) == SampleStream(corpus, recipe, TOKENIZER).next_step()
