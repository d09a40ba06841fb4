"""From finished units to clips: collect, select, number. Runs no model and is always repeatable."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip, VoiceLabels
from pipelines.corpus.select import apply_thresholds
from pipelines.stages.voice_attributes import label_folder, label_path
from pipelines.units.unit import Unit, read_unit, unit_path
from voxmill.data.records import Cost, Ending, ShardPlace, StageName, WindowResult

UNITS_A_TASK = 64


@dataclass
class CollectedClips:
    """What the finished units hold: clips in order, how each window ended, and the compute that each stage took."""

    kept: list[CorpusClip] = field(default_factory=list)
    rejected: list[CorpusClip] = field(default_factory=list)
    windows: dict[str, list[WindowResult]] = field(default_factory=dict)
    """By recording."""
    costs: dict[StageName, Cost] = field(default_factory=dict)

    def reject(self, clip: CorpusClip, ending: Ending) -> None:
        """Adds a clip to the rejected ones."""
        clip.ending = ending
        self.rejected.append(clip)


def collect(units: list[Unit], out: Path, config: AnnotateConfig) -> CollectedClips:
    """Reads every unit's labels, applies selection and drops clips that were met before (same audio, same bounds)."""
    collected = CollectedClips()
    seen: set[str] = set()
    for unit, (results, costs, places, voices) in zip(units, _read_units(units, out, config), strict=True):
        shard = str(unit_path(Path(), unit.unit_id))
        for name, cost in costs.items():
            collected.costs[name] = collected.costs.get(name, Cost()) + cost
        for result in results:
            collected.windows.setdefault(result.window.recording_id, []).append(result)
            for candidate in result.clips:
                offset, size = places[f"{candidate.clip_id}.flac"]
                clip = CorpusClip(
                    candidate=candidate,
                    window=result.window,
                    origin=result.origin,
                    place=ShardPlace(shard=shard, offset=offset, size=size, sha256=None),
                    voice=voices.get(candidate.clip_id, VoiceLabels()),
                    speaker=result.window.source.speaker,
                )
                ending = apply_thresholds(clip, config.select)
                if ending is None and clip.clip_id in seen:
                    ending = Ending(stage=StageName.SELECTION, reason="duplicate_clip")
                if ending is None:
                    seen.add(clip.clip_id)
                    collected.kept.append(clip)
                else:
                    collected.reject(clip, ending)
    return collected


def number(collected: CollectedClips) -> None:
    """Sorts the kept clips by session and time and gives each its position in the session."""
    collected.kept.sort(key=lambda clip: clip.order)
    position: dict[str, int] = {}
    for clip in collected.kept:
        clip.position = position.get(clip.session, 0)
        position[clip.session] = clip.position + 1


def _read_units(units: list[Unit], out: Path, config: AnnotateConfig) -> Iterator[tuple[Any, ...]]:
    """Content of every unit, in order, read by Ray tasks where there are many."""
    folders = {name: label_folder(out, name, config.voices) for name in config.voices.labellers}

    def read(names: list[str]) -> list[tuple[Any, ...]]:
        from pipelines.corpus.old_units import content

        return [
            content(
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
