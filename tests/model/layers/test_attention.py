"""`attend()` and its spans against attention written out."""

import math

import pytest
import torch
from torch import Tensor

from model.layers.attention import Bidirectional, Documents, Packed, Step, attend
from model.layers.kv_cache import KVCache
from model.presets import preset
from tests.support.oracle import error

CONFIG = preset("tiny").lm_config  # 4 heads, 2 key heads, head_dim 16
HEADS, KEYS, SIZE = CONFIG.num_attention_heads, CONFIG.num_key_value_heads, CONFIG.head_dim


def written_out(query_THD: Tensor, key_SKD: Tensor, value_SKD: Tensor, *, causal: bool) -> Tensor:
    """Softmax attention of one sequence, head by head, in fp64; the last query stands at the last key."""
    heads = []
    for head in range(query_THD.shape[1]):
        shared = head // (query_THD.shape[1] // key_SKD.shape[1])
        scores = query_THD[:, head].double() @ key_SKD[:, shared].double().T / math.sqrt(query_THD.shape[2])
        if causal:
            rows, columns = scores.shape
            later = torch.arange(columns)[None] > torch.arange(rows)[:, None] + columns - rows
            scores = scores.masked_fill(later, -math.inf)
        heads.append(scores.softmax(-1) @ value_SKD[:, shared].double())
    return torch.stack(heads, dim=1).float()


def random_heads(*leading: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(*leading, count, SIZE) for count in (HEADS, KEYS, KEYS))  # type: ignore[return-value]


def empty_cache(rows: int, capacity: int) -> KVCache:
    return KVCache.empty(CONFIG, rows=rows, capacity=capacity, dtype=torch.float32)


def test_documents() -> None:
    documents = Documents((3, 1, 2))
    assert documents.positions_N.tolist() == [0, 1, 2, 0, 0, 1]
    assert documents.ids_N.tolist() == [0, 0, 0, 1, 2, 2]
    assert documents.offsets_S.tolist() == [0, 3, 4, 6]
    assert documents.ends == (2, 3, 5)


def test_bidirectional() -> None:
    query, key, value = random_heads(2, 5)
    found = attend(query, key, value, Bidirectional())
    for row in range(2):
        assert error(found[row], written_out(query[row], key[row], value[row], causal=False)) <= 1e-6


@pytest.mark.parametrize("lengths", [(6,), (3, 1, 2), (1, 1, 4)])
def test_packed(lengths: tuple[int, ...]) -> None:
    query, key, value = random_heads(6)
    cache = empty_cache(len(lengths), 4 if max(lengths) <= 4 else 6)
    found = attend(query, key, value, Packed(Documents(lengths), cache), layer=1)
    pieces = zip(*(x.split(lengths) for x in (query, key, value, found)), strict=True)
    for row, (q, k, v, out) in enumerate(pieces):
        assert error(out, written_out(q, k, v, causal=True)) <= 1e-6
        assert torch.equal(cache.keys_RKTD[1][row, :, : len(k)].transpose(0, 1), k)
        assert torch.equal(cache.values_RKTD[1][row, :, : len(v)].transpose(0, 1), v)
    assert not cache.keys_RKTD[0].any()


def test_step_of_requests_of_different_lengths() -> None:
    lengths = (4, 1, 3)
    before = random_heads(sum(lengths))
    cache = empty_cache(3, 4)  # full for the first request, so the step must widen it
    attend(*before, Packed(Documents(lengths), cache))
    cache.lengths = list(lengths)
    query, key, value = (x + 1 for x in random_heads(3))
    found = attend(query, key, value, Step.over(cache))
    keys, values = (x.split(lengths) for x in before[1:])
    for row in range(3):
        seen_key = torch.cat([keys[row], key[row : row + 1]])
        seen_value = torch.cat([values[row], value[row : row + 1]])
        wanted = written_out(query[row : row + 1], seen_key, seen_value, causal=True)
        assert error(found[row], wanted[0]) <= 1e-6
    assert cache.capacity > 4
    # What stands beyond a request's own length must not matter, not even a NaN's neighbour from an older request.
    for keys_RKTD, values_RKTD in zip(cache.keys_RKTD, cache.values_RKTD, strict=True):
        keys_RKTD[1, :, 2:] = 1e4
        values_RKTD[1, :, 2:] = -1e4
    assert torch.equal(attend(query, key, value, Step.over(cache)), found)
