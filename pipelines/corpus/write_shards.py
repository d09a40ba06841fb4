"""Kept clips of a bucket into shards: sessions whole, each shard named by its content, unchanged ones as they are.

A shard is written again only where a session in it has changed; new sessions get shards of their own, which `voxmill
compact` merges. Old shards stay, since a reader may have them open, until `voxmill vacuum`. With
`write.shard_by=language` what is kept whole is a session's clips of one language, and a shard has clips of no other;
its name tells which.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow as pa

from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.measures import corpus_path
from voxmill.core.hashing import sha256_bytes
from voxmill.core.storage import file_names
from voxmill.data.layout import bucket_name, part_path
from voxmill.data.records import ClipId, ShardPlace
from voxmill.data.schemas import from_table, read_parquet, to_table, write_parquet
from voxmill.data.shards import TarWriter, read_member, to_json
from voxmill.data.snapshot import ShardFile

ShardBy = Literal["language"] | None
_LANGUAGE_IN_NAME = re.compile(r"clips-\d+-(.+)-[0-9a-f]{12}\.tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What a clip in a shard was made of: its place in its unit's file, and its position in the session.

    A unit's file never changes, so an equal member has equal bytes. `session` has the language behind a NUL where
    shards are by language. `changed`: a hash of the clip's `.json` where that is not as its unit has it; "" else.
    """

    clip_id: ClipId
    session: str
    unit: str
    offset: int
    position: int | None
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Earlier:
    """Shards that the bucket has: members and places by clip, and the shards' entries by name."""

    members: Mapping[ClipId, Member]
    places: Mapping[ClipId, ShardPlace]
    shards: Mapping[str, ShardFile]


@dataclass(frozen=True, slots=True)
class Group:
    """Clips of one shard; `kept` is the shard that has exactly these already, `number` the one in its name.

    language: as the name has it; "" where shards are not by language.
    """

    clips: list[CorpusClip]
    number: int
    kept: ShardFile | None = None
    language: str = ""


def language_in_name(shard: str) -> str:
    """The language of a shard by its name; "" where it has none."""
    found = _LANGUAGE_IN_NAME.fullmatch(PurePosixPath(shard).name)
    return found[1] if found else ""


def _language(clip: CorpusClip) -> str:
    """A clip's language as names of shards have it, `und` for none."""
    return re.sub(r"[^0-9a-z]+", "-", clip.candidate.language.lower()).strip("-") or "und"


def _together(clip: CorpusClip, shard_by: ShardBy) -> str:
    """Equal for clips that are kept in one shard as far as it has room."""
    return clip.session if shard_by is None else f"{clip.session}\0{_language(clip)}"


def member_of(clip: CorpusClip, shard_by: ShardBy = None) -> Member:
    """Of a clip whose place is still that in its unit's file."""
    return Member(
        clip_id=clip.clip_id,
        session=_together(clip, shard_by),
        unit=clip.place.shard,
        offset=clip.place.offset,
        position=clip.position,
        changed=sha256_bytes(_json(clip))[:16] if clip.has_other_metadata else "",
    )


def _json(clip: CorpusClip) -> bytes:
    """A clip's `.json` in its shard."""
    return to_json(clip.metadata(clip.known_speaker))


def read_earlier(out: Path, bucket: int, buckets: int, shards: Sequence[ShardFile]) -> Earlier:
    """What the run before left; nothing where it was ended in between.

    Args:
        shards: of the bucket, as `dataset.json` or the run before names them.
    """
    path, part = _members_path(out, bucket), part_path(out, "clips.parquet", bucket, buckets)
    if not path.exists() or not part.exists():
        return Earlier({}, {}, {})
    there = file_names(out / shard_folder(bucket, buckets))
    known = {shard.name: shard for shard in shards if PurePosixPath(shard.name).name in there}
    table = read_parquet(part, ("clip_id", "shard", "offset", "size", "sha256"))
    clip_ids = table["clip_id"].to_pylist()
    places = dict(zip(clip_ids, from_table(ShardPlace, table), strict=True))
    rows = read_parquet(path)
    if "changed" not in rows.column_names:
        # Of an older version, which kept the texts of shards as they were.
        rows = rows.append_column("changed", pa.array([""] * rows.num_rows, pa.string()))
    members = {member.clip_id: member for member in from_table(Member, rows)}
    return Earlier(members, {clip: place for clip, place in places.items() if place.shard in known}, known)


def forget_members(out: Path, bucket: int) -> None:
    """Before the bucket's part of the index changes: a run that is ended now writes its shards again."""
    _members_path(out, bucket).unlink(missing_ok=True)


def remember_members(out: Path, bucket: int, members: Sequence[Member]) -> None:
    """After the bucket's part of the index was written."""
    write_parquet(_members_path(out, bucket), to_table(members, Member))


def _members_path(out: Path, bucket: int) -> Path:
    return corpus_path(out, bucket, "members.parquet")


def shard_folder(bucket: int, buckets: int) -> str:
    """Where the bucket's shards lie below OUT."""
    return "shards" if buckets == 1 else f"shards/{bucket_name(bucket)}"


def group_clips(clips: Sequence[CorpusClip], earlier: Earlier, limit: float, shard_by: ShardBy = None) -> list[Group]:
    """Clips by shard: as they were where their sessions are as they were.

    Args:
        clips: in the order of the index. limit: bytes of a shard.
    """
    sessions = _by_session(clips, shard_by)
    shards_of: dict[str, dict[str, None]] = {}
    sessions_in: dict[str, dict[str, None]] = {}
    before: dict[str, list[Member]] = {}
    for clip_id, place in earlier.places.items():
        member = earlier.members.get(clip_id)
        if member is not None:
            shards_of.setdefault(member.session, {})[place.shard] = None
            sessions_in.setdefault(place.shard, {})[member.session] = None
            before.setdefault(member.session, []).append(member)
    same = {
        session
        for session, members in before.items()
        if sorted(members, key=_order)
        == sorted((member_of(clip, shard_by) for clip in sessions.get(session, [])), key=_order)
    }
    kept = {shard for shard, inside in sessions_in.items() if all(session in same for session in inside)}
    # A session over several shards stays only as a whole.
    torn = {session for session in same if not all(shard in kept for shard in shards_of[session])}
    kept = {shard for shard in kept if not torn & sessions_in[shard].keys()}
    groups: list[Group] = []
    numbers = [_number(name) for name in earlier.shards]
    rewritten: dict[str, list[CorpusClip]] = {}
    new: list[CorpusClip] = []
    staying: dict[str, list[CorpusClip]] = {shard: [] for shard in sorted(kept)}
    for session, members in sessions.items():
        homes = shards_of.get(session, {})
        if homes and all(shard in kept for shard in homes):
            for clip in members:
                staying[earlier.places[clip.clip_id].shard].append(clip)
        elif len(homes) == 1:
            rewritten.setdefault(next(iter(homes)), []).extend(members)
        else:
            new += members
    groups += [Group(inside, _number(shard), earlier.shards[shard]) for shard, inside in staying.items() if inside]
    free = max(numbers, default=-1) + 1
    for shard, inside in sorted(rewritten.items()):
        for index, part in enumerate(divide(inside, limit, shard_by)):
            groups.append(_new_group(part, free if index else _number(shard), shard_by))
            free += index > 0
    for part in divide(new, limit, shard_by):
        groups.append(_new_group(part, free, shard_by))
        free += 1
    return sorted(groups, key=lambda group: group.number)


def _new_group(clips: list[CorpusClip], number: int, shard_by: ShardBy) -> Group:
    return Group(clips, number, language="" if shard_by is None else _language(clips[0]))


def _order(member: Member) -> tuple[int, str]:
    return member.position or 0, member.clip_id


def _number(shard: str) -> int:
    """The number in `clips-000003-<sha256>.tar` or `clips-000003-en-<sha256>.tar`."""
    return int(PurePosixPath(shard).name.split("-")[1])


def divide(clips: Sequence[CorpusClip], limit: float, shard_by: ShardBy = None) -> list[list[CorpusClip]]:
    """Clips of one shard each: sessions whole in order; a session over `limit` bytes is split in order.

    By language, where asked, one after another.
    """
    if shard_by is not None:
        languages: dict[str, list[CorpusClip]] = {}
        for clip in clips:
            languages.setdefault(_language(clip), []).append(clip)
        return [shard for _, alike in sorted(languages.items()) for shard in divide(alike, limit)]
    shards: list[list[CorpusClip]] = [[]]
    size = 0.0
    for members in _by_session(clips).values():
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


def _by_session(clips: Sequence[CorpusClip], shard_by: ShardBy = None) -> dict[str, list[CorpusClip]]:
    sessions: dict[str, list[CorpusClip]] = {}
    for clip in clips:
        sessions.setdefault(_together(clip, shard_by), []).append(clip)
    return sessions


def write_shards(groups: Sequence[Group], out: Path, folder: str, earlier: Earlier) -> list[ShardFile]:
    """Writes the groups that no shard has yet and gives every clip its place; one entry a shard, by number."""
    shards: list[ShardFile] = []
    for group in groups:
        if group.kept is not None:
            for clip in group.clips:
                clip.place = earlier.places[clip.clip_id]
            shards.append(group.kept)
        else:
            shards.append(_write_shard(group, out, folder))
    return shards


def _write_shard(group: Group, out: Path, folder: str) -> ShardFile:
    """One tar of clips.

    A clip's `.json` has what its audio was cut with: labels that may change later are in the index alone, also a
    speaker by clustering.
    """
    name = f"clips-{group.number:06d}{group.language and '-'}{group.language}"
    with TarWriter(out / folder / f"{name}.tar", named_by_content=True) as tar:
        written = []
        for clip in group.clips:
            flac = read_member(out, clip.place.shard, clip.place.offset, clip.place.size)
            written.append(tar.add(f"{clip.clip_id}.flac", flac))
            tar.add(f"{clip.clip_id}.json", _json(clip))
    name = f"{folder}/{tar.path.name}"
    for clip, one in zip(group.clips, written, strict=True):
        clip.place = ShardPlace(shard=name, offset=one.offset, size=one.size, sha256=one.sha256)
    return ShardFile(name=name, size=tar.size, sha256=tar.sha256, clips=len(written))
