"""From finished units to clips: collect, select, number. Runs no model and is always repeatable."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.select import apply_thresholds
from pipelines.units.store import LabelStore, StoredUnit, read_unit, unit_path
from voxmill.core.local_ray import map_tasks
from voxmill.data.records import ClipId, Cost, Ending, ShardPlace, StageName, VoiceLabels, WindowResult, WorkUnit

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


def collect(units: list[WorkUnit], out: Path, config: AnnotateConfig) -> CollectedClips:
    """Reads every unit's labels, applies selection and drops clips that were met before (same audio, same bounds)."""
    collected = CollectedClips()
    seen: set[str] = set()
    for content in _read_units(units, out, config):
        unit = content.stored.unit
        shard = str(unit_path(Path(), unit.bucket, unit.unit_id))
        for name, cost in content.costs.items():
            collected.costs[name] = collected.costs.get(name, Cost()) + cost
        for result in unit.results:
            collected.windows.setdefault(result.window.recording_id, []).append(result)
            for candidate in result.clips:
                offset, size = content.stored.places[candidate.clip_id]
                clip = CorpusClip(
                    candidate=candidate,
                    window=result.window,
                    origin=result.origin,
                    place=ShardPlace(shard=shard, offset=offset, size=size, sha256=None),
                    voice=content.voices.get(candidate.clip_id, VoiceLabels()),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnitContent:
    """A finished unit with the labels of its clips' voices."""

    stored: StoredUnit
    voices: dict[ClipId, VoiceLabels]
    costs: dict[StageName, Cost]


def _read_units(units: list[WorkUnit], out: Path, config: AnnotateConfig) -> Iterator[_UnitContent]:
    """Content of every unit, in order, read by Ray tasks where there are many."""
    store = LabelStore(out, config.voice_attributes)

    def read(names: list[tuple[int, str]]) -> list[_UnitContent]:
        contents = []
        for bucket, name in names:
            stored = read_unit(unit_path(out, bucket, name))
            voices, costs = store.read(bucket, name)
            contents.append(_UnitContent(stored=stored, voices=voices, costs=stored.unit.costs | costs))
        return contents

    names = [(unit.bucket, unit.unit_id) for unit in units]
    chunks = [names[i : i + UNITS_A_TASK] for i in range(0, len(names), UNITS_A_TASK)]
    if len(chunks) <= 1:
        # To start one worker takes longer than to read.
        for chunk in chunks:
            yield from read(chunk)
        return
    for _, contents in map_tasks(read, chunks, ordered=True, num_cpus=0.5):
        yield from contents
