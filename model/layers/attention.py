"""Attention behind one `attend()`: inside short sequences, inside the documents of a packed row, and over a cache.

A packed row is a flat run of tokens [N, heads, head_dim]; a token sees itself and what precedes it in its own document.
"""

import inspect
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from model.layers.kv_cache import KVCache

SEEN_MULTIPLE = 16
"""A step attends to a multiple of so many positions: then masked ones, which longer rows of the batch cause, do not
change the order in which the visible ones are summed, and a row's result is the same in every batch."""

FOLDED_FROM = 16
"""Sequences from which heads that share a key are folded on a GPU; for fewer, the copy costs more than it gives."""


@dataclass(frozen=True)
class Documents:
    """How a flat row of N tokens divides into documents, first to last."""

    lengths: tuple[int, ...]
    device: torch.device = field(default=torch.device("cpu"))

    @cached_property
    def positions_N(self) -> Tensor:
        """Position of each token in its document, int64."""
        return torch.cat([torch.arange(length) for length in self.lengths] or [torch.arange(0)]).to(self.device)

    @cached_property
    def ids_N(self) -> Tensor:
        """Number of each token's document, int64."""
        return torch.repeat_interleave(
            torch.arange(len(self.lengths)), torch.tensor(self.lengths, dtype=torch.long)
        ).to(self.device)

    @cached_property
    def offsets_S(self) -> Tensor:
        """First token of each document, and N at the end, int32."""
        ends = torch.tensor((0, *self.lengths)).cumsum(0)
        return ends.to(device=self.device, dtype=torch.int32)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Index of each document's last token."""
        return tuple(end - 1 for end in accumulate(self.lengths))


@dataclass(frozen=True)
class Bidirectional:
    """Queries [B, Tq, H, D] see all keys [B, Tk, K, D] of their own sequence."""


@dataclass(frozen=True)
class Packed:
    """Tokens [N, H, D] see the past of their own document. `cache`, if given, takes the keys and values."""

    documents: Documents
    cache: KVCache | None = None


@dataclass(frozen=True)
class Step:
    """One token a request, [R, H, D], sees that request's cache, to which it is added first."""

    cache: KVCache
    positions_R: Tensor
    visible_R11T: Tensor

    @classmethod
    def over(cls, cache: KVCache) -> "Step":
        """The next step of every row of `cache`, which is widened if it is full."""
        seen = -(-(max(cache.lengths) + 1) // SEEN_MULTIPLE) * SEEN_MULTIPLE
        cache.reserve(seen)
        positions_R = cache.positions_R()
        visible_RT = torch.arange(seen, device=positions_R.device) <= positions_R[:, None]
        return cls(cache, positions_R, visible_RT[:, None, None])


Span = Bidirectional | Packed | Step


def attend(query: Tensor, key: Tensor, value: Tensor, span: Span, *, layer: int = 0) -> Tensor:
    """Softmax attention scaled by 1 / sqrt(D), with H a multiple of the key heads K.

    Args:
        query: [..., H, D]; key and value: [..., K, D]; the leading dimensions are those of `span`.
        layer: index of the layer in the span's cache; 0 without a cache.

    Returns:
        [..., H, D] with the query's leading dimensions.
    """
    if isinstance(span, Step):
        return _attend_step(query, key, value, span, layer)
    if isinstance(span, Packed):
        if span.cache is not None:
            _fill(span.cache, span.documents, key, value, layer)
        return _attend_packed(query, key, value, span.documents)
    return _scaled_dot_product(query, key, value, causal=False)


def _scaled_dot_product(query_BTHD: Tensor, key_BTKD: Tensor, value_BTKD: Tensor, *, causal: bool) -> Tensor:
    if not query_BTHD.numel():
        # Without audio; the kernels of GPUs want a sequence. The sums are zero: keys and values get gradients of zeros.
        return query_BTHD + key_BTKD.sum() + value_BTKD.sum()
    grouped = query_BTHD.shape[2] != key_BTKD.shape[2]
    query_BHTD, key_BKTD, value_BKTD = (x.transpose(1, 2) for x in (query_BTHD, key_BTKD, value_BTKD))
    if grouped and not causal and query_BHTD.is_cuda and len(query_BHTD) >= FOLDED_FROM:
        return _folded(query_BHTD, key_BKTD, value_BKTD).transpose(1, 2)
    return F.scaled_dot_product_attention(
        query_BHTD, key_BKTD, value_BKTD, is_causal=causal, enable_gqa=grouped
    ).transpose(1, 2)


def _folded(query_BHTD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor) -> Tensor:
    """Attention [B, H, T, D] where all see all: the heads that share a key stand as queries of it.

    GPUs' kernels work in tiles of 64 queries or more, of which the eleven tokens of a patch fill few: this takes a
    third of the time on an H200. On a CPU the copy costs more than it gives.
    """
    num_key_heads, num_tokens = key_BKTD.shape[1], query_BHTD.shape[2]
    query_BKLD = query_BHTD.unflatten(1, (num_key_heads, -1)).flatten(2, 3)
    out_BKLD = F.scaled_dot_product_attention(query_BKLD, key_BKTD, value_BKTD)
    out_BHTD: Tensor = out_BKLD.unflatten(2, (-1, num_tokens)).flatten(1, 2)
    return out_BHTD


def _attend_packed(query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, documents: Documents) -> Tensor:
    lengths = documents.lengths
    if query_NHD.is_cuda and query_NHD.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn  # half precision on GPU only

        longest, offsets = max(lengths), documents.offsets_S
        grouped = query_NHD.shape[1] != key_NKD.shape[1] and _varlen_asks_for_groups()
        attention = partial(varlen_attn, enable_gqa=True) if grouped else varlen_attn
        return attention(  # type: ignore[return-value]
            query_NHD,
            key_NKD,
            value_NKD,
            offsets,
            offsets,
            longest,
            longest,
            window_size=(-1, 0),
        )
    # A loop over documents computes no masked pair, which a mask over the row would: quadratic only per document.
    pieces = zip(*(x.split(lengths) for x in (query_NHD, key_NKD, value_NKD)), strict=True)
    return torch.cat([_scaled_dot_product(q[None], k[None], v[None], causal=True)[0] for q, k, v in pieces])


@cache
def _varlen_asks_for_groups() -> bool:
    """Whether `varlen_attn` takes fewer key heads only with `enable_gqa`; PyTorch 2.11's takes them as they are."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def _fill(cache: KVCache, documents: Documents, key_NKD: Tensor, value_NKD: Tensor, layer: int) -> None:
    pieces = zip(key_NKD.split(documents.lengths), value_NKD.split(documents.lengths), strict=True)
    for row, (key_TKD, value_TKD) in enumerate(pieces):
        length = key_TKD.shape[0]
        cache.keys_RKTD[layer][row, :, :length] = key_TKD.transpose(0, 1)
        cache.values_RKTD[layer][row, :, :length] = value_TKD.transpose(0, 1)


def _attend_step(query_RHD: Tensor, key_RKD: Tensor, value_RKD: Tensor, span: Step, layer: int) -> Tensor:
    key_RKTD, value_RKTD = span.cache.keys_RKTD[layer], span.cache.values_RKTD[layer]
    rows_R = torch.arange(query_RHD.shape[0], device=query_RHD.device)
    key_RKTD[rows_R, :, span.positions_R] = key_RKD
    value_RKTD[rows_R, :, span.positions_R] = value_RKD
    seen = span.visible_R11T.shape[-1]
    # With one query a head, the heads that share a key stand as queries of it: keys are read once, not once a head.
    query_RKGD = query_RHD.unflatten(1, (key_RKD.shape[1], -1))
    out_RKGD = F.scaled_dot_product_attention(
        query_RKGD, key_RKTD[:, :, :seen], value_RKTD[:, :, :seen], attn_mask=span.visible_R11T
    )
    return out_RKGD.flatten(1, 2)
