"""Kept clips into shards: sessions whole, each shard written by a Ray task and named by its content.

A second run finds the same names, and a run with other thresholds never overwrites a shard that a reader has open.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.figures import ShardEntry
from voxmill.core.files import sweep_temporaries
from voxmill.core.local_ray import map_tasks
from voxmill.data.records import ShardMetadata, ShardPlace
from voxmill.data.shards import TarWriter, read_member, to_json


@dataclasses.dataclass(frozen=True, slots=True)
class ShardMember:
    """A clip to be written: what its `.json` holds, and where its FLAC lies now."""

    metadata: ShardMetadata
    place: ShardPlace


def write_shards(groups: list[list[CorpusClip]], out: Path) -> list[ShardEntry]:
    """Writes a shard a group and gives every clip its place in it; returns one entry a shard."""
    shards: list[ShardEntry] = []
    for group, (places, shard) in zip(groups, _written(groups, out), strict=True):
        for clip, place in zip(group, places, strict=True):
            clip.place = place
        shards.append(shard)
    return shards


def shard_member(clip: CorpusClip) -> ShardMember:
    """A clip as a shard holds it: labels that may change later are in the index alone, also a speaker by clustering."""
    return ShardMember(clip.metadata(clip.window.source.speaker), clip.place)


def _written(groups: list[list[CorpusClip]], out: Path) -> Iterator[tuple[list[ShardPlace], ShardEntry]]:
    """What `write_shard` returns for every group, in order; members are made group by group, as they are written."""
    numbered = ((number, [shard_member(clip) for clip in group]) for number, group in enumerate(groups))
    if len(groups) == 1:
        # To start one worker takes longer than to write.
        yield write_shard(*next(numbered), out)
        return

    def write(item: tuple[int, list[ShardMember]]) -> tuple[list[ShardPlace], ShardEntry]:
        return write_shard(*item, out)

    for _, written in map_tasks(write, numbered, ordered=True, num_cpus=0.5):
        yield written


def divide(clips: list[CorpusClip], limit: float) -> list[list[CorpusClip]]:
    """Clips of one shard each: sessions whole in order; a session over `limit` bytes is split in order."""
    sessions: dict[str, list[CorpusClip]] = {}
    for clip in clips:
        sessions.setdefault(clip.session, []).append(clip)
    shards: list[list[CorpusClip]] = [[]]
    size = 0.0
    for members in sessions.values():
        if shards[-1] and size + sum(clip.place.size for clip in members) > limit:
            shards.append([])
            size = 0.0
        for clip in members:
            if shards[-1] and size + clip.place.size > limit:
                shards.append([])
                size = 0.0
            shards[-1].append(clip)
            size += clip.place.size
    return [shard for shard in shards if shard]


def write_shard(number: int, members: list[ShardMember], out: Path) -> tuple[list[ShardPlace], ShardEntry]:
    """One tar of clips; returns the place of each one's FLAC in it, and the shard's entry."""
    written = []
    with TarWriter(out / "shards" / f"clips-{number:06d}.tar", named_by_content=True) as tar:
        for member in members:
            place, clip_id = member.place, member.metadata.clip_id
            flac = read_member(out, place.shard, place.offset, place.size)
            written.append(tar.add(f"{clip_id}.flac", flac))
            tar.add(f"{clip_id}.json", to_json(dataclasses.asdict(member.metadata)))
    name = f"shards/{tar.path.name}"
    places = [ShardPlace(shard=name, offset=one.offset, size=one.size, sha256=one.sha256) for one in written]
    return places, {"name": name, "bytes": tar.size, "sha256": tar.sha256, "clips": len(members)}


def remove_stale(out: Path, shards: list[ShardEntry]) -> None:
    """Removes shards that no index names any more, and temporary files that a killed job left behind."""
    named = {Path(shard["name"]).name for shard in shards}
    for path in (out / "shards").glob("*.tar"):
        if path.name not in named:
            path.unlink()
    sweep_temporaries(out)
    sweep_temporaries(out / "shards")
    sweep_temporaries(out / "work", recursive=True)
