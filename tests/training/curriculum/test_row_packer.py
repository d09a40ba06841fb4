"""Rows: within their budget, nearly full, nothing lost, nobody starved, resumable."""

from dataclasses import dataclass

import numpy as np
import pytest

from training.curriculum.row_packer import Packer


@dataclass(frozen=True)
class Piece:
    number: int
    length: int


def pieces(seed: int, longest: int = 900) -> "list[Piece]":
    lengths = np.minimum(np.random.default_rng(seed).lognormal(4.3, 0.8, 6000).astype(int) + 5, longest)
    return [Piece(number, int(length)) for number, length in enumerate(lengths)]


def test_rows_are_full_and_nothing_is_lost_or_repeated() -> None:
    items = pieces(0)
    waiting = iter(items)
    packer: Packer[Piece] = Packer(1024, 256)
    rows = [packer.next_row(lambda: next(waiting)) for _ in range(400)]
    assert all(sum(p.length for p in row) <= 1024 for row in rows)
    assert sum(p.length for row in rows for p in row) / (400 * 1024) > 0.98
    packed = [p.number for row in rows for p in row]
    left = [p.number for p in packer.waiting]
    assert len(set(packed)) == len(packed)
    assert sorted(packed + left) == list(range(len(packed) + len(left)))


def test_nobody_waits_for_ever() -> None:
    items = [Piece(0, 1000), *[Piece(n, 100) for n in range(1, 3000)]]
    waiting = iter(items)
    packer: Packer[Piece] = Packer(1024, 64)
    assert packer.next_row(lambda: next(waiting))[0] == items[0]
    rows = [packer.next_row(lambda: next(waiting)) for _ in range(200)]
    assert max(max(p.number for p in row) - row[0].number for row in rows) <= 64


def test_a_row_is_best_fit() -> None:
    packer: Packer[Piece] = Packer(100, 5, [Piece(n, k) for n, k in enumerate((40, 70, 55, 5, 60))])
    row = packer.next_row(lambda: pytest.fail("the window is full"))
    assert [p.length for p in row] == [40, 60]


def test_it_resumes_from_what_waits() -> None:
    items = pieces(1)
    waiting = iter(items)
    packer: Packer[Piece] = Packer(1024, 128)
    for _ in range(50):
        packer.next_row(lambda: next(waiting))
    drawn = max(p.number for p in packer.waiting) + 1
    again: Packer[Piece] = Packer(1024, 128, packer.waiting)
    rest = iter(items[drawn:])
    for _ in range(50):
        assert again.next_row(lambda: next(rest)) == packer.next_row(lambda: next(waiting))


def test_what_never_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="1025"):
        Packer[Piece](1024, 4).next_row(lambda: Piece(0, 1025))
