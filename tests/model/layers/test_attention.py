"""`attend()` and its spans against attention written out."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from model.layers.attention import Bidirectional, Documents, Packed, Step, _folded, attend
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


@pytest.mark.parametrize("lengths", [(6,), (3, 1, 2), (1, 1, 1), (40, 17, 129, 1)])
def test_the_kernel_for_rows_of_documents_sees_what_the_mask_lets_through(lengths: tuple[int, ...]) -> None:
    """Its rule (a query sees the keys from its document's offset on, up to itself), applied to our offsets, against the
    mask that document numbers and positions give."""
    documents = Documents(lengths)
    offsets = documents.offsets_S.tolist()
    assert documents.offsets_S.dtype == torch.int32 and offsets[-1] == sum(lengths)
    seen_NN = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
    for start, end in pairwise(offsets):
        for query in range(start, end):
            seen_NN[query, start : query + 1] = True
    ids_N, positions_N = documents.ids_N, documents.positions_N
    same_NN = ids_N[:, None] == ids_N[None]
    assert torch.equal(seen_NN, same_NN & (positions_N[:, None] >= positions_N[None]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel is CUDA's")
@pytest.mark.parametrize("lengths", [(6,), (3, 1, 2), (40, 17, 129, 1)])
def test_the_kernel_computes_what_the_loop_computes(lengths: tuple[int, ...]) -> None:
    """bf16 on a GPU beside fp32 on the CPU, values and gradients."""
    shapes = [(sum(lengths), heads, 64) for heads in (HEADS, KEYS, KEYS)]
    wide = [torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_() for shape in shapes]
    half = [x.detach().to("cuda", torch.bfloat16).requires_grad_() for x in wide]
    expected = attend(wide[0], wide[1], wide[2], Packed(Documents(lengths)))
    found = attend(half[0], half[1], half[2], Packed(Documents(lengths, torch.device("cuda"))))
    expected.square().sum().backward()
    found.square().sum().backward()
    assert error(found.cpu(), expected) <= 0.02
    for ours, theirs in zip(half, wide, strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert error(ours.grad.cpu(), theirs.grad) <= 0.04


def test_bidirectional() -> None:
    query, key, value = random_heads(2, 5)
    found = attend(query, key, value, Bidirectional())
    for row in range(2):
        assert error(found[row], written_out(query[row], key[row], value[row], causal=False)) <= 1e-6


def test_folded_heads() -> None:
    query, key, value = random_heads(2, 5)
    found = _folded(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
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
