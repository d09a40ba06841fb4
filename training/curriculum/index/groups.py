"""The clips of an index in groups: every stream of every mixture is some of them.

A group has one dataset, language, style, set of modes and, where the recipe has shares by length, range of lengths. Its
clips stand in the order of the index, as their latents do in the shards: neighbours are read together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.curriculum.index.columns import LONG_SECONDS, WIDTHS, Group, map_file

CHUNK = 1 << 18
"""Clips in memory at once."""
_COLUMNS = ("seconds", "patches", "language", "style", "modes")
Key = tuple[int, ...]
"""dataset, language, style, mask of modes, range of lengths"""


def group_clips(folder: Path, starts: Sequence[int], bounds: Sequence[float]) -> tuple[Group, ...]:
    """Writes `group_clips.bin` beside the columns that are there.

    Args:
        starts: first clips of the datasets, and the number of all.
        bounds: longest clips of the ranges of lengths, in seconds, rising; empty: there is one range.
    """
    columns = {name: map_file(folder / f"{name}.bin", WIDTHS[name]) for name in _COLUMNS}
    measured: dict[Key, _Measured] = {}
    for first in range(0, starts[-1], CHUNK):
        for key, clips in _by_key(columns, starts, bounds, first):
            measured.setdefault(key, _Measured()).add(clips, columns)
    groups, total = [], 0
    cursors: dict[Key, int] = {}
    for key in sorted(measured):
        dataset, language, style, mask, length = key
        one = measured[key]
        groups.append(
            Group(
                dataset=dataset,
                language=language,
                style=style,
                modes=mask,
                up_to=bounds[length] if bounds else None,
                start=total,
                stop=total + one.count,
                seconds=one.seconds,
                seconds_over=tuple(one.seconds_over.tolist()),
                longest=one.longest,
            )
        )
        cursors[key] = total
        total += one.count
    path = folder / "group_clips.bin"
    with open(path, "wb") as file:
        file.truncate(total * np.dtype(WIDTHS["group_clips"]).itemsize)
    placed = map_file(path, WIDTHS["group_clips"], writable=True)
    for first in range(0, starts[-1], CHUNK):
        for key, clips in _by_key(columns, starts, bounds, first):
            placed[cursors[key] : cursors[key] + len(clips)] = clips
            cursors[key] += len(clips)
    return tuple(groups)


class _Measured:
    """What is known of a group after some of its clips."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        self.seconds_over = np.zeros(len(LONG_SECONDS))
        self.longest, self._most_patches = -1, -1

    def add(self, clips: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> None:
        seconds = columns["seconds"][clips].astype(np.float64)
        self.count += len(clips)
        self.seconds += float(seconds.sum())
        self.seconds_over += [seconds[seconds > limit].sum() for limit in LONG_SECONDS]
        patches = columns["patches"][clips]
        place = int(patches.argmax())
        if patches[place] > self._most_patches:
            self.longest, self._most_patches = int(clips[place]), int(patches[place])


def _by_key(
    columns: dict[str, NDArray[Any]], starts: Sequence[int], bounds: Sequence[float], first: int
) -> list[tuple[Key, NDArray[np.int64]]]:
    """(key, its clips in order) of a chunk's clips that enter."""
    clips_C = first + np.flatnonzero(columns["modes"][first : first + CHUNK])
    if not len(clips_C):
        return []
    # Compared in the precision of the column.
    limits = np.array(bounds, dtype=np.float32)[:-1]
    keys_CK = np.stack(
        [
            np.searchsorted(starts, clips_C, side="right") - 1,
            *(columns[name][clips_C].astype(np.int64) for name in ("language", "style", "modes")),
            np.searchsorted(limits, columns["seconds"][clips_C]),
        ],
        axis=1,
    )
    kinds, which = np.unique(keys_CK, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1)))[:-1]
    return [(tuple(kind.tolist()), clips) for kind, clips in zip(kinds, np.split(clips_C[order], ends), strict=True)]
