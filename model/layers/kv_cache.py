"""Keys and values of requests in progress: owned by a request or a batch of requests, never by a module.

One cache serves one stack. A row is a request; rows have their own lengths. Requests join (`KVCache.join`) and leave
(`select`) a batch by copying rows, so two threads never share a cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import LanguageModelConfig

GROWTH = 128
"""Positions added at least when a cache is full, so that growing is rare."""


@dataclass
class KVCache:
    """Of a stack of L layers for R rows, with K key heads and room for T positions."""

    key_LRKTD: Tensor
    value_LRKTD: Tensor
    lengths: list[int]
    """Filled positions of each row."""

    @classmethod
    def empty(
        cls,
        config: LanguageModelConfig,
        *,
        rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> "KVCache":
        """An empty cache of `rows` requests."""
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, capacity, config.head_dim)
        key, value = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return cls(key, value, [0] * rows)

    @property
    def capacity(self) -> int:
        """Positions that fit before the cache grows."""
        return self.key_LRKTD.shape[3]

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` positions in each row."""
        if capacity <= self.capacity:
            return
        capacity = max(capacity, self.capacity + GROWTH)
        self.key_LRKTD, self.value_LRKTD = (_stretched(t, capacity) for t in (self.key_LRKTD, self.value_LRKTD))

    def positions_R(self) -> Tensor:
        """The next position of every row, [rows] int64."""
        return torch.tensor(self.lengths, device=self.key_LRKTD.device)

    def advance(self) -> None:
        """Counts the position that a step has just written in every row."""
        self.lengths = [length + 1 for length in self.lengths]

    def select(self, rows: Sequence[int]) -> "KVCache":
        """A new cache with these rows, in this order."""
        index = torch.tensor(rows, dtype=torch.long, device=self.key_LRKTD.device)
        keep = max((self.lengths[row] for row in rows), default=0)
        keep = min(self.capacity, -(-(keep + 1) // GROWTH) * GROWTH)
        return KVCache(
            self.key_LRKTD[:, :, :, :keep].index_select(1, index),
            self.value_LRKTD[:, :, :, :keep].index_select(1, index),
            [self.lengths[row] for row in rows],
        )

    @staticmethod
    def join(caches: Sequence["KVCache"]) -> "KVCache":
        """A new cache with the rows of all, in order; as wide as the widest."""
        capacity = max(cache.capacity for cache in caches)
        return KVCache(
            torch.cat([_stretched(cache.key_LRKTD, capacity) for cache in caches], dim=1),
            torch.cat([_stretched(cache.value_LRKTD, capacity) for cache in caches], dim=1),
            [length for cache in caches for length in cache.lengths],
        )


def _stretched(tensor_LRKTD: Tensor, capacity: int) -> Tensor:
    missing = capacity - tensor_LRKTD.shape[3]
    return torch.nn.functional.pad(tensor_LRKTD, (0, 0, 0, missing)) if missing else tensor_LRKTD
