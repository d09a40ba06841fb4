"""The clips of an index in groups, the shortest first: every stream of every mixture is some slices of them.

A group has one dataset, language, style and set of modes. Sorted without holding all clips: first each clip is put into
the range of its group and its quarter of a second, then each range is sorted by itself.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.curriculum.index.columns import SUMMED, WIDTHS, Group, map_file

CHUNK = 1 << 20
"""Clips in memory at once."""
A_SECOND = 4
"""Ranges of a second, in which clips are put before they are sorted."""
LONGEST = 301
"""Seconds; longer clips share the last range."""
_RANGES = LONGEST * A_SECOND


def group_clips(folder: Path, starts: list[int]) -> tuple[Group, ...]:
    """Writes `group_clips.bin` and `group_seconds.bin` beside the columns that are there.

    Args:
        starts: first clips of the datasets, and the number of all.
    """
    columns = {name: map_file(folder / f"{name}.bin", WIDTHS[name]) for name in ("seconds", "language", "style")}
    modes = map_file(folder / "modes.bin", WIDTHS["modes"])
    counts: dict[tuple[int, ...], NDArray[np.int64]] = {}
    for first in range(0, starts[-1], CHUNK):
        _, keys_CK, ranges_C = _keys(columns, modes, starts, first)
        for key, places in _by_key(keys_CK):
            ranges = np.bincount(ranges_C[places], minlength=_RANGES)
            counts[key] = counts.get(key, 0) + ranges
    groups, total = [], 0
    cursors: dict[tuple[int, ...], NDArray[np.int64]] = {}
    for key in sorted(counts):
        size = int(counts[key].sum())
        dataset, language, style, mask = key
        groups.append(
            Group(dataset=dataset, language=language, style=style, modes=mask, start=total, stop=total + size)
        )
        cursors[key] = total + np.cumsum(counts[key]) - counts[key]
        total += size
    path = folder / "group_clips.bin"
    with open(path, "wb") as file:
        file.truncate(total * np.dtype(WIDTHS["group_clips"]).itemsize)
    placed = map_file(path, WIDTHS["group_clips"], writable=True)
    for first in range(0, starts[-1], CHUNK):
        clips_C, keys_CK, ranges_C = _keys(columns, modes, starts, first)
        for key, places in _by_key(keys_CK):
            _place(placed, cursors[key], clips_C[places], ranges_C[places])
    _sort_ranges(placed, columns["seconds"], [(key, cursors[key]) for key in sorted(counts)], counts)
    _write_sums(folder / "group_seconds.bin", placed, columns["seconds"])
    return tuple(groups)


def _keys(
    columns: dict[str, NDArray[Any]], modes: NDArray[np.uint8], starts: list[int], first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(clips of a chunk that enter, their (dataset, language, style, modes), the range of each one's length)."""
    clips_C = first + np.flatnonzero(modes[first : first + CHUNK])
    dataset = np.searchsorted(starts, clips_C, side="right") - 1
    columns_CK = [dataset, columns["language"][clips_C], columns["style"][clips_C], modes[clips_C]]
    keys_CK = np.stack([column.astype(np.int64) for column in columns_CK], axis=1)
    ranges_C = np.minimum((columns["seconds"][clips_C] * A_SECOND).astype(np.int64), _RANGES - 1)
    return clips_C, keys_CK, ranges_C


def _by_key(keys_CK: NDArray[np.int64]) -> list[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """(key, rows with it, in order)."""
    if not len(keys_CK):
        return []
    kinds, which = np.unique(keys_CK, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    bounds = np.cumsum(np.bincount(which.reshape(-1)))[:-1]
    return [(tuple(kind.tolist()), rows) for kind, rows in zip(kinds, np.split(order, bounds), strict=True)]


def _place(
    placed: NDArray[Any], cursors: NDArray[np.int64], clips: NDArray[np.int64], ranges: NDArray[np.int64]
) -> None:
    """Puts clips of one group behind those that their ranges hold already."""
    order = np.argsort(ranges, kind="stable")
    counts = np.bincount(ranges, minlength=_RANGES)
    within = np.arange(len(clips)) - (np.cumsum(counts) - counts)[ranges[order]]
    placed[cursors[ranges[order]] + within] = clips[order]
    cursors += counts


def _sort_ranges(
    placed: NDArray[Any],
    seconds: NDArray[Any],
    ends: list[tuple[tuple[int, ...], NDArray[np.int64]]],
    counts: dict[tuple[int, ...], NDArray[np.int64]],
) -> None:
    for key, stops in ends:
        for number in np.flatnonzero(counts[key] > 1):
            stop = int(stops[number])
            start = stop - int(counts[key][number])
            clips = placed[start:stop].copy()
            placed[start:stop] = clips[np.argsort(seconds[clips], kind="stable")]


def _write_sums(path: Path, placed: NDArray[Any], seconds: NDArray[Any]) -> None:
    """Seconds of all clips before every `SUMMED`th place."""
    total = 0.0
    with open(path, "wb") as file:
        for first in range(0, len(placed) + 1, CHUNK):
            lengths = seconds[placed[first : first + CHUNK]].astype(np.float64)
            blocks = np.add.reduceat(lengths, np.arange(0, len(lengths), SUMMED)) if len(lengths) else np.empty(0)
            before = total + np.concatenate([[0.0], np.cumsum(blocks)])
            # A chunk's last sum is the first of the next one.
            file.write(before[: CHUNK // SUMMED].astype(WIDTHS["group_seconds"]).tobytes())
            total = float(before[-1])
