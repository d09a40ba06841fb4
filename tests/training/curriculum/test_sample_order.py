"""Every sample exactly once an epoch, whatever the world size and however often it changes."""

import random

import numpy as np
import pytest

from training.curriculum.sample_order import BLOCK, WINDOW, Permutation, SampleOrder, share


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 4097, 65536, 100_003])
def test_it_is_a_permutation(size: int) -> None:
    for key in (0, 1, -5, 2**70):
        found = Permutation(size, key)[np.arange(size)]
        assert np.array_equal(np.sort(found), np.arange(size))


def test_it_looks_random_and_depends_on_its_key() -> None:
    size = 20_000
    places = np.arange(size)
    one, other = (Permutation(size, key)[places].astype(float) for key in (1, 2))
    for left, right in ((places, one), (one, other), (one[:-1], one[1:])):
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.03
    # A random permutation keeps one element in place on average.
    assert (one == places).sum() < 8
    assert np.unique(one[: size // 2] // (size // 10), return_counts=True)[1] == pytest.approx(size / 20, rel=0.1)


def test_a_place_can_be_asked_without_those_before_it() -> None:
    whole = Permutation(12_345, 7)[np.arange(12_345)]
    assert [int(Permutation(12_345, 7)[np.array([p])][0]) for p in (0, 777, 12_344)] == [*whole[[0, 777, 12_344]]]


def test_no_thing_to_permute_is_refused() -> None:
    with pytest.raises(ValueError, match="one or more"):
        Permutation(0, 1)


def test_every_epoch_has_every_sample_once_in_its_own_order() -> None:
    for size in (1, 63, 64, 65, 101, BLOCK * WINDOW, BLOCK * WINDOW + 1, 10_007):
        order = SampleOrder(size, seed=3)
        epochs = [order.samples(start * size, size).tolist() for start in range(4)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 4 or size == 1


def test_neighbours_come_within_a_window_and_in_no_order_there() -> None:
    size = 50_000
    samples = SampleOrder(size, seed=1).samples(0, size)
    for start in range(0, size - BLOCK * WINDOW, BLOCK * WINDOW):
        window = np.sort(samples[start : start + BLOCK * WINDOW])
        runs = np.split(window, np.flatnonzero(np.diff(window) > 1) + 1)
        assert len(runs) <= WINDOW + 1, "a window is made of whole blocks"
    for distance in (1, 2, 7):
        assert abs(np.corrcoef(samples[:-distance], samples[distance:])[0, 1]) < 0.05
        assert (np.abs(np.diff(samples)) < BLOCK).mean() < 2 / WINDOW
    other = SampleOrder(size, seed=1).samples(size, size)
    assert abs(np.corrcoef(samples, other)[0, 1]) < 0.05
    # Who are neighbours in a block is not the same in each epoch.
    shift = (other[np.argsort(samples)][1:] - other[np.argsort(samples)][:-1]) % size
    assert len(np.unique(shift)) > size / 20


def test_exactly_once_over_changing_worlds_up_to_1024() -> None:
    """Ranks take their share of each step; the world changes at random steps, runs are killed and resume by cursor."""
    for trial in range(30):
        choose = random.Random(trial)
        count = choose.choice([1, 6, 24, 64, 1024])
        worlds = [world for world in (1, 2, 3, 4, 6, 8, 12, 64, 256, 512, 1024) if count % world == 0]
        size, seed = choose.randrange(20, 3000), choose.randrange(2**63)
        order, cursor, taken = SampleOrder(size, seed), 0, list[int]()
        steps = max(3, 2 * size // count)
        for _ in range(steps):
            if choose.random() < 0.3:
                order = SampleOrder(size, seed)
            world = choose.choice(worlds)
            step = order.samples(cursor, count).tolist()
            places = [place for rank in range(world) for place in share(count, rank, world)]
            assert len({len(share(count, rank, world)) for rank in range(world)}) == 1
            assert sorted(places) == list(range(count))
            taken += [step[place] for place in sorted(places)]
            cursor += count
        assert taken == SampleOrder(size, seed).samples(0, steps * count).tolist()
        for start in range(0, len(taken) - size + 1, size):
            assert sorted(taken[start : start + size]) == list(range(size))


def test_unequal_shares_are_refused() -> None:
    for count, rank, world in ((10, 0, 4), (8, 8, 8), (8, -1, 2)):
        with pytest.raises(ValueError, match="equally"):
            share(count, rank, world)
