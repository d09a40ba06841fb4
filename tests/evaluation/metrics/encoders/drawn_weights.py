"""Weights drawn by their names and a wave, the same wherever they are made: what a network gives can be compared."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch


def drawn(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """A tensor for every name, scaled so that signals keep their size; numpy's generator, seeded by the name."""
    made: dict[str, torch.Tensor] = {}
    for name, given in shapes.items():
        shape = tuple(given)
        last = name.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            made[name] = torch.tensor(1)
            continue
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if last == "running_var":
            values = 1 + 0.1 * np.abs(values)
        elif last in ("weight", "weight_v") and len(shape) > 1:
            values = values / np.sqrt(np.prod(shape[1:]))
        elif last in ("weight", "weight_g", "grep_a"):
            values = 1 + 0.1 * values
        else:
            values = 0.1 * values
        made[name] = torch.from_numpy(values.astype(np.float32)).reshape(shape)
    return made


def wave(seconds: float) -> np.ndarray:
    """A wavering tone in noise, float32 at 16 kHz."""
    t = np.arange(int(seconds * 16000)) / 16000
    noise = np.random.default_rng(7).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * (120 + 40 * np.sin(5 * t)) * t) + 0.05 * noise).astype(np.float32)
