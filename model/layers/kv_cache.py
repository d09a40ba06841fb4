"""Keys and values of requests in progress: owned by a request or a batch of requests, never by a module.

One cache serves one stack. A row is a request; rows have their own lengths. Requests join (`KVCache.join`) and leave
(`select`) a batch by copying rows, so two threads never share a cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import LanguageModelConfig

GROWTH = 128
"""Positions added at least when a cache is full, so that growing is rare."""


@dataclass
class KVCache:
    """Of a stack of layers for R rows, with K key heads and room for T positions.

    A tensor a layer, each with memory of its own: torch.compile then writes in place, where slices of one tensor for
    all layers would be copied whole.
    """

    keys_RKTD: tuple[Tensor, ...]
    values_RKTD: tuple[Tensor, ...]
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
        shape, layers = (rows, config.num_key_value_heads, capacity, config.head_dim), range(config.num_hidden_layers)
        keys, values = (tuple(torch.zeros(shape, dtype=dtype, device=device) for _ in layers) for _ in range(2))
        return cls(keys, values, [0] * rows)

    @property
    def capacity(self) -> int:
        """Positions that fit before the cache grows."""
        return self.keys_RKTD[0].shape[2]

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` positions in each row."""
        if capacity <= self.capacity:
            return
        capacity = max(capacity, self.capacity + GROWTH)
        self.keys_RKTD = _stretched(self.keys_RKTD, capacity)
        self.values_RKTD = _stretched(self.values_RKTD, capacity)

    def positions_R(self) -> Tensor:
        """The next position of every row, [rows] int64."""
        return torch.tensor(self.lengths, device=self.keys_RKTD[0].device)

    def advance(self) -> None:
        """Counts the position that a step has just written in every row."""
        self.lengths = [length + 1 for length in self.lengths]

    def select(self, rows: Sequence[int]) -> "KVCache":
        """A new cache with these rows, in this order."""
        index = torch.tensor(rows, dtype=torch.long, device=self.keys_RKTD[0].device)
        keep = max((self.lengths[row] for row in rows), default=0)
        keep = min(self.capacity, -(-(keep + 1) // GROWTH) * GROWTH)
        return KVCache(
            tuple(key_RKTD[:, :, :keep].index_select(0, index) for key_RKTD in self.keys_RKTD),
            tuple(value_RKTD[:, :, :keep].index_select(0, index) for value_RKTD in self.values_RKTD),
            [self.lengths[row] for row in rows],
        )

    @staticmethod
    def join(caches: Sequence["KVCache"]) -> "KVCache":
        """A new cache with the rows of all, in order; as wide as the widest."""
        capacity = max(cache.capacity for cache in caches)
        keys = zip(*(_stretched(cache.keys_RKTD, capacity) for cache in caches), strict=True)
        values = zip(*(_stretched(cache.values_RKTD, capacity) for cache in caches), strict=True)
        return KVCache(
            tuple(torch.cat(layer) for layer in keys),
            tuple(torch.cat(layer) for layer in values),
            [length for cache in caches for length in cache.lengths],
        )


def _stretched(layers_RKTD: tuple[Tensor, ...], capacity: int) -> tuple[Tensor, ...]:
    missing = capacity - layers_RKTD[0].shape[2]
    return tuple(F.pad(layer_RKTD, (0, 0, 0, missing)) for layer_RKTD in layers_RKTD) if missing else layers_RKTD
