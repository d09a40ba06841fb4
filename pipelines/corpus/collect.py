"""From finished units to rows: gather, select, number. Runs no model and is always repeatable."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config import AnnotateConfig
from pipelines.corpus.select import Verdict, judge
from pipelines.stages.voice_attributes import label_folder, label_path
from pipelines.units.unit import Unit, read_unit, unit_path

UNITS_A_TASK = 64


@dataclass
class Gathered:
    """What the finished units say: clips in order, how each part ended, and the compute that each stage took."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def gather(units: list[Unit], out: Path, config: AnnotateConfig) -> Gathered:
    """Reads every unit's labels, applies selection and drops clips that were met before (same audio, same bounds)."""
    found = Gathered()
    seen: set[str] = set()
    for unit, (state, places, voices) in zip(units, _read_units(units, out, config), strict=True):
        path = str(unit_path(Path(), unit.unit_id))
        for name, spent in state.get("stages", {}).items():
            total = found.stages.setdefault(name, {"seconds": 0.0, "audio_seconds": 0.0, "calls": 0})
            for key in total:
                total[key] += spent[key]
        for name, label in voices.items():
            total = found.stages.setdefault(name.title(), {"seconds": 0.0, "audio_seconds": 0.0, "calls": 0})
            for key in total:
                total[key] += label[key]
        for part in state["parts"]:
            found.parts.setdefault(part["recording_id"], []).append(part)
            for clip in part.get("clips", []) if "end" not in part else []:
                row = _clip_row(part, clip)
                offset, size = places[f"{row['clip_id']}.flac"]
                row["voice"] = {name: label["clips"].get(row["clip_id"]) for name, label in voices.items()}
                row |= {"shard": path, "offset": offset, "size": size, "sha256": None, "position": None}
                verdict = judge(row, config.select)
                if verdict is None and row["clip_id"] in seen:
                    verdict = Verdict("select", "duplicate_clip", None, None)
                if verdict is None:
                    seen.add(row["clip_id"])
                    found.kept.append(row)
                else:
                    found.rejected.append(row | asdict(verdict))
    return found


def number(found: Gathered) -> None:
    """Sorts the kept clips by session and time and gives each its position in the session."""
    found.kept.sort(key=lambda row: (row["session"], row["order"]))
    position: dict[str, int] = {}
    for row in found.kept:
        row["position"] = position.get(row["session"], 0)
        position[row["session"]] = row["position"] + 1


_Read = tuple[dict[str, Any], dict[str, tuple[int, int]], dict[str, dict[str, Any]]]


def _read_units(units: list[Unit], out: Path, config: AnnotateConfig) -> Iterator[_Read]:
    """Labels, member places and voice labels of every unit, in order, read by Ray tasks where there are many."""
    folders = {name: label_folder(out, name, config.voices) for name in config.voices.labellers}

    def read(names: list[str]) -> list[_Read]:
        return [
            (
                *read_unit(unit_path(out, name)),
                {key: json.loads(label_path(folder, name).read_bytes()) for key, folder in folders.items()},
            )
            for name in names
        ]

    names = [unit.unit_id for unit in units]
    chunks = [names[i : i + UNITS_A_TASK] for i in range(0, len(names), UNITS_A_TASK)]
    if len(chunks) <= 1:
        # To start one worker takes longer than to read.
        for chunk in chunks:
            yield from read(chunk)
        return
    import ray

    task = ray.remote(num_cpus=0.5)(read)
    ahead = max(int(ray.cluster_resources().get("CPU", 1)) * 4, 4)
    waiting: deque[Any] = deque()
    for chunk in chunks:
        waiting.append(task.remote(chunk))
        if len(waiting) >= ahead:
            yield from ray.get(waiting.popleft())
    while waiting:
        yield from ray.get(waiting.popleft())


def _clip_row(part: dict[str, Any], clip: dict[str, Any]) -> dict[str, Any]:
    duration = (clip["end_sample"] - clip["start_sample"]) / part["sample_rate"]
    return {
        **{
            key: clip[key]
            for key in ("clip_id", "start_sample", "end_sample", "text", "words", "language", "turn", "cut")
        },
        **{key: clip[key] for key in ("quality", "transcript")},
        **{key: part[key] for key in ("recording_id", "session", "sample_rate", "speaker", "origin", "licence")},
        "language_probability": part["language_probability"],
        "given_speaker": part["speaker"],
        "duration": duration,
        "order": (part["name"], clip["start_sample"]),
    }
