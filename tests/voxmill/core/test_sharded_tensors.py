"""Tensors in flat slices over the files of many ranks, read in slices of other sizes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from voxmill.core.errors import UserError
from voxmill.core.sharded_tensors import (
    INDEX,
    Fragment,
    ShardedTensors,
    Wanted,
    extents_of,
    index_text,
    rank_file,
    write_fragments,
)

KINDS = ("weight", "exp_avg")
SHAPES = {"a": (5, 7), "b": (), "long": (3, 2_000_003), "empty": (0, 4)}


def whole(kind: str, name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(KINDS.index(kind) + 10 * len(name))
    return torch.randn(SHAPES[name], generator=generator)


def write(folder: Path, cuts: dict[str, list[int]]) -> None:
    """Rank r has the elements from cut r to cut r + 1 of each tensor."""
    ranks, extents = len(cuts["a"]) - 1, {}
    for rank in range(ranks):
        fragments = [
            Fragment(
                name=name,
                shape=SHAPES[name],
                start=cuts[name][rank],
                tensors={
                    kind: whole(kind, name).flatten()[cuts[name][rank] : cuts[name][rank + 1]].clone() for kind in KINDS
                },
            )
            for name in SHAPES
            if cuts[name][rank] < cuts[name][rank + 1] or (name == "empty" and rank == 0)
        ]
        written = write_fragments(folder / rank_file(rank), fragments)
        assert written.size == (folder / rank_file(rank)).stat().st_size
        extents[rank_file(rank)] = extents_of(fragments)
    (folder / INDEX).write_text(index_text(KINDS, extents))


CUTS = {"a": [0, 1, 20, 35], "b": [0, 0, 1, 1], "long": [0, 5_900_000, 5_900_000, 6_000_009], "empty": [0, 0, 0, 0]}


def test_tensors_come_out_whole_and_in_slices(tmp_path: Path) -> None:
    write(tmp_path, CUTS)
    saved = ShardedTensors(tmp_path)
    assert saved.shapes == SHAPES and saved.kinds == KINDS
    for kind in KINDS:
        assert all(torch.equal(tensor, whole(kind, name)) for name, tensor in saved.whole(kind))
    wanted = [
        Wanted(kind, name, start, torch.full((end - start,), float("nan")))
        for kind in KINDS
        for name, start, end in (("a", 0, 35), ("a", 19, 21), ("long", 5_899_990, 6_000_009), ("b", 0, 1))
    ]
    saved.read_into(reversed(wanted))
    for kind, name, start, found in wanted:
        assert torch.equal(found, whole(kind, name).flatten()[start : start + found.numel()])


def test_a_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    write(tmp_path, CUTS)
    found = load_file(tmp_path / rank_file(0))
    assert found.keys() == {f"{kind}/{name}" for kind in KINDS for name in ("a", "long", "empty")}
    assert torch.equal(found["exp_avg/long"], whole("exp_avg", "long").flatten()[:5_900_000])


def test_what_is_damaged_is_said_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, CUTS)
    index = json.loads((tmp_path / INDEX).read_text())
    for broken, words in (
        ({**index, "files": ["../a.safetensors", *index["files"][1:]]}, "no file of a rank"),
        ({**index, "tensors": {"a": [[5, 7], [[0, 0, 1], [2, 20, 15]]]}}, "a has no elements from 1 on"),
        ({**index, "tensors": {"a": [[5, 8], index["tensors"]["a"][1]]}}, "ends after 35 of 40"),
        ({**index, "tensors": {"a": [[35], [[9, 0, 35]]]}}, "no elements from 0 on"),
        ({"files": 3}, "damaged"),
    ):
        (tmp_path / INDEX).write_text(json.dumps(broken))
        with pytest.raises(UserError, match=words) as caught:
            ShardedTensors(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / INDEX).write_text(json.dumps(index))
    file = tmp_path / rank_file(1)
    content = file.read_bytes()
    file.write_bytes(content[:-4])
    with pytest.raises(OSError, match="ends before byte"):
        dict(ShardedTensors(tmp_path).whole("exp_avg"))
    for head in (b"\xff" * 8 + content[8:], content[:8] + b"[" + content[9:], b""):
        file.write_bytes(head)
        with pytest.raises(UserError, match="its header cannot be read"):
            dict(ShardedTensors(tmp_path).whole("weight"))
    with pytest.raises(UserError, match="has no ema of a"):
        dict(ShardedTensors(tmp_path).whole("ema"))
