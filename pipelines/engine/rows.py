"""Rows of the graph: a unit's record as JSON, and its audio beside it in 16 bits.

Samples that were decoded into 16 bits travel so, at the rate of their recording, and come back bit by bit; only a
separated voice, which is what a network made of it, travels as float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.stages.base import NO_SAMPLES, WindowAudio
from voxmill.data.records import WorkUnit, from_json_text, to_json_text

_NO_COUNTS = np.zeros(0, dtype=np.int16)
_COUNTS = pa.large_list(pa.large_list(pa.int16()))
_FLOATS = pa.large_list(pa.large_list(pa.float32()))
ROW = pa.schema(
    [
        ("unit", pa.large_string()),
        ("seconds", pa.float64()),
        ("steps", pa.large_list(pa.float64())),
        ("windows_counts", _COUNTS),
        ("windows_floats", _FLOATS),
        ("clips_counts", _COUNTS),
        ("clips_floats", _FLOATS),
    ]
)
"""`steps` and `windows_*` have an entry a window of the unit, `clips_*` one a candidate of all its windows.

A sound is in the list of its kind that fits it, and empty in the other.
"""


class Row(NamedTuple):
    """A unit on its way, with the audio of its windows. `seconds` of recordings that it stands for."""

    unit: WorkUnit
    audio: tuple[WindowAudio, ...]
    seconds: float = 0.0


def no_audio(unit: WorkUnit) -> tuple[WindowAudio, ...]:
    """Empty audio for every window of a unit."""
    return tuple(WindowAudio() for _ in unit.results)


def to_rows(rows: Sequence[Row]) -> pa.Table:
    """Rows of the graph as a table; what only later stages of the same process ask for stays behind."""
    columns: dict[str, pa.Array] = {
        "unit": pa.array([to_json_text(row.unit) for row in rows], pa.large_string()),
        "steps": pa.array([[sound.step for sound in row.audio] for row in rows], ROW.field("steps").type),
        "seconds": pa.array([row.seconds for row in rows], pa.float64()),
    }
    windows, clips = [], []
    for row in rows:
        pairs = list(zip(row.unit.results, row.audio, strict=True))
        windows.append([_packed(sound.samples, sound.step, result.dc_offset) for result, sound in pairs])
        clips.append([_packed(clip, sound.step, result.dc_offset) for result, sound in pairs for clip in sound.clips])
    for kind, sounds in (("windows", windows), ("clips", clips)):
        columns[f"{kind}_counts"] = _nested([[counts for counts, _ in row] for row in sounds], np.int16)
        columns[f"{kind}_floats"] = _nested([[floats for _, floats in row] for row in sounds], np.float32)
    return pa.table(columns, schema=ROW)


def from_rows(table: pa.Table) -> list[Row]:
    """Rows of the graph."""
    rows = []
    for number, text in enumerate(table["unit"].to_pylist()):
        unit = from_json_text(WorkUnit, text)
        steps: list[float] = table["steps"][number].as_py()
        windows, clips = (_sounds(table, kind, number) for kind in ("windows", "clips"))
        audio, first = [], 0
        for index, (result, step) in enumerate(zip(unit.results, steps, strict=True)):
            own = clips[first : first + len(result.clips)]
            first += len(own)
            audio.append(
                WindowAudio(
                    samples=_unpacked(*windows[index], step, result.dc_offset),
                    step=step,
                    clips=tuple(_unpacked(*clip, step, result.dc_offset) for clip in own),
                )
            )
        rows.append(Row(unit, tuple(audio), table["seconds"][number].as_py()))
    return rows


def _sounds(table: pa.Table, kind: str, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(counts, floats) of every sound of a kind in a row."""
    counts, floats = (_arrays(table[f"{kind}_{what}"][number].values) for what in ("counts", "floats"))
    return list(zip(counts, floats, strict=True))


def _packed(samples: np.ndarray, step: float, dc_offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples [T] as (counts of the step, nothing), or as (nothing, themselves) where they have no step."""
    if not step:
        return _NO_COUNTS, samples
    return np.rint((samples + np.float32(dc_offset)) / np.float32(step)).astype(np.int16), NO_SAMPLES


def _unpacked(counts: np.ndarray, floats: np.ndarray, step: float, dc_offset: float) -> np.ndarray:
    """What `_packed` was given, bit by bit; `Decode` makes its samples by the same two operations."""
    if not step:
        return floats
    samples = counts.astype(np.float32) * np.float32(step)
    samples -= np.float32(dc_offset)
    return samples


def _nested(rows: Sequence[Sequence[np.ndarray]], kind: type[np.int16] | type[np.float32]) -> pa.Array:
    sounds = [sound for row in rows for sound in row]
    values = np.concatenate(sounds) if sounds else np.zeros(0, dtype=kind)
    inner = pa.LargeListArray.from_arrays(_offsets([len(sound) for sound in sounds]), pa.array(values))
    return pa.LargeListArray.from_arrays(_offsets([len(row) for row in rows]), inner)


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64), pa.int64())


def _arrays(sounds: pa.LargeListArray) -> list[np.ndarray]:
    """The inner lists as NumPy arrays, without a copy."""
    return [sound.values.to_numpy(zero_copy_only=True) for sound in sounds]
