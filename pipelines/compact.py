"""`voxmill compact`: small shards of a bucket, as increments leave them, become few of the usual size.

A bucket at a time: new shards first, then its part of `clips.parquet`, and `dataset.json` when all buckets are done.
Old shards stay for `voxmill vacuum`, so a reader that has the old index open reads on, and a run that was ended
anywhere can be repeated. Rows keep their order and clips their bytes, so latents keep their names and places.
"""

import dataclasses
import hashlib
import tarfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from pipelines.config import WriteConfig
from pipelines.corpus.write_shards import language_in_name
from pipelines.report.run_record import read_run
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import sweep_temporaries
from voxmill.core.hashing import sha256_bytes
from voxmill.core.local_ray import join_ray
from voxmill.core.local_ray.tasks import map_tasks
from voxmill.core.storage import is_remote, raise_unavailable, scratch_folder
from voxmill.data.layout import part_path, read_part
from voxmill.data.schemas import write_parquet
from voxmill.data.shards import Member, TarWriter, path_inside
from voxmill.data.snapshot import EARLIER, BucketFiles, PartFile, ShardFile, Snapshot, read_snapshot, write_snapshot

SMALL = 0.5
"""A shard below this share of the usual size is small."""
FEW = 64
"""Up to so many buckets are done by this process: to start Ray takes longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What a run did: shards that were merged, into how many, and their bytes."""

    merged: int = 0
    written: int = 0
    size: int = 0

    def __add__(self, other: "Compaction") -> "Compaction":
        return Compaction(
            merged=self.merged + other.merged, written=self.written + other.written, size=self.size + other.size
        )


def compact(out: Path, shard_megabytes: float) -> Compaction:
    """Merges small shards of every bucket; the caller holds OUT.

    Args:
        shard_megabytes: size of a shard, in 1e6 bytes.

    Raises:
        UserError: OUT has no `dataset.json`. JobError: a part or a shard is damaged; nothing of its bucket is changed.
    """
    snapshot = require_snapshot(out)
    buckets, limit = snapshot.buckets, shard_megabytes * 1e6
    sweep_temporaries(out)
    for folder in ("shards", "clips.parquet", EARLIER):
        sweep_temporaries(out / folder, recursive=True)

    def work(files: BucketFiles) -> tuple[BucketFiles, Compaction]:
        return compact_bucket(out, files, buckets, limit)

    files, total = [], Compaction()
    for compacted, found in _results(work, snapshot.files):
        files.append(compacted)
        total += found
    if tuple(files) != snapshot.files:
        write_snapshot(out, dataclasses.replace(snapshot, files=tuple(files)))
    return total


def _results(
    work: Callable[[BucketFiles], tuple[BucketFiles, Compaction]], items: Sequence[BucketFiles]
) -> Iterator[tuple[BucketFiles, Compaction]]:
    """Of every bucket in order, by Ray tasks where there are many."""
    if len(items) <= FEW:
        yield from map(work, items)
        return
    import ray

    if not ray.is_initialized():
        join_ray()
    for _, result in map_tasks(work, items, ordered=True, num_cpus=0.5):
        yield result


def usual_megabytes(out: Path) -> float:
    """`write.shard_megabytes` of the run that made OUT, in 1e6 bytes.

    Raises:
        UserError: `run.json` is of an older voxmill.
    """
    config = read_run(out).get("config") or {}
    return WriteConfig.model_validate(config.get("write") or {}).shard_megabytes


def require_snapshot(out: Path) -> Snapshot:
    """`dataset.json` of OUT.

    Raises:
        UserError: it has none, or one that cannot be read.
    """
    snapshot = read_snapshot(out)
    if snapshot is None:
        raise UserError(f"{out}: has no dataset.json; run `voxmill annotate` on it again, which writes one")
    return snapshot


def compact_bucket(out: Path, files: BucketFiles, buckets: int, limit: float) -> tuple[BucketFiles, Compaction]:
    """Merges small shards of one bucket; returns what the bucket consists of then.

    Raises:
        JobError: its part or a shard is damaged.
    """
    part = part_path(out, "clips.parquet", files.bucket, buckets)
    try:
        table = read_part(part)
    except (pa.ArrowException, OSError) as error:
        raise_unavailable(error)
        raise JobError(f"{part}: cannot be read ({str(error).splitlines()[0]}); run `voxmill annotate` again") from None
    shards = _shards(out, table, files)
    groups = small_groups(shards, limit)
    now, places = {shard.name: shard for shard in shards}, dict[str, Member]()
    for group in groups:
        merged, members = _merge(out, table, group)
        now[merged.name] = merged
        places |= {clip_id: Member(merged.name, one.offset, one.size, one.sha256) for clip_id, one in members.items()}
    if groups:
        table = _with_places(table, places)
        write_parquet(part, table)
    compacted = BucketFiles(
        bucket=files.bucket,
        clips=PartFile.of(part.read_bytes(), table.num_rows),
        rejected=files.rejected,
        recordings=files.recordings,
        shards=tuple(now[name] for name in dict.fromkeys(table["shard"].to_pylist())),
    )
    merged_size = sum(shard.size for group in groups for shard in group)
    return compacted, Compaction(merged=sum(map(len, groups)), written=len(groups), size=merged_size)


def small_groups(shards: Sequence[ShardFile], limit: float) -> list[list[ShardFile]]:
    """Shards to be merged with each other, in the index's order: small ones, together at most `limit` bytes.

    Where shards are by language, those of one.
    """
    languages: dict[str, list[ShardFile]] = {}
    for shard in shards:
        languages.setdefault(language_in_name(shard.name), []).append(shard)
    return [group for alike in languages.values() for group in _small_groups(alike, limit)]


def _small_groups(shards: Sequence[ShardFile], limit: float) -> list[list[ShardFile]]:
    groups: list[list[ShardFile]] = [[]]
    size = 0
    for shard in shards:
        if shard.size >= SMALL * limit:
            continue
        if size + shard.size > limit:
            groups.append([])
            size = 0
        groups[-1].append(shard)
        size += shard.size
    return [group for group in groups if len(group) > 1]


def _shards(out: Path, table: pa.Table, files: BucketFiles) -> list[ShardFile]:
    """The shards that the part names, in its order; known ones from `dataset.json`, others as they lie there.

    A run that was killed between its part and `dataset.json` leaves such others.
    """
    counts, known = Counter(table["shard"].to_pylist()), {shard.name: shard for shard in files.shards}
    shards = []
    for name, clips in counts.items():
        shard = known.get(name)
        if shard is None or shard.clips != clips:
            path = _inside(out, str(name))
            try:
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                shard = ShardFile(name=str(name), size=path.stat().st_size, sha256=sha256, clips=clips)
            except FileNotFoundError:
                raise JobError(f"{path}: not there, which clips.parquet names; run `voxmill annotate` again") from None
        shards.append(shard)
    return shards


def _merge(out: Path, table: pa.Table, group: Sequence[ShardFile]) -> tuple[ShardFile, dict[str, Member]]:
    """One shard of all clips of some, in the index's order, and the place of each one's FLAC.

    Raises:
        JobError: a shard is damaged.
    """
    names = {shard.name for shard in group}
    first = PurePosixPath(group[0].name)
    # `clips-000003-<sha256>.tar` becomes `clips-000003-<another>.tar`, and `clips-000003-en-<sha256>.tar` likewise.
    number = first.name.removesuffix(".tar").rpartition("-")[0] or first.stem
    members: dict[str, Member] = {}
    with ExitStack() as stack:
        samples = {shard.name: stack.enter_context(_samples(_inside(out, shard.name))) for shard in group}
        tar = stack.enter_context(TarWriter(out / first.parent / f"{number}.tar", named_by_content=True))
        for row in table.select(["clip_id", "shard", "sha256"]).to_pylist():
            if row["shard"] not in names:
                continue
            clip_id, sample = row["clip_id"], samples[row["shard"]]
            flac = sample.get(f"{clip_id}.flac")
            if flac is None or row["sha256"] not in (None, sha256_bytes(flac)):
                raise JobError(f"{out / row['shard']}: damaged at clip {clip_id}; run `voxmill annotate` again")
            members[clip_id] = tar.add(f"{clip_id}.flac", flac)
            labels = sample.get(f"{clip_id}.json")
            if labels is not None:
                tar.add(f"{clip_id}.json", labels)
    name = str(first.parent / tar.path.name)
    return ShardFile(name=name, size=tar.size, sha256=tar.sha256, clips=len(members)), members


def _inside(out: Path, shard: str) -> Path:
    try:
        return path_inside(out, shard)
    except ValueError as error:
        raise JobError(f"{error}; run `voxmill annotate` again") from None


class _Samples:
    """Members of a tar on this machine, read one by one."""

    def __init__(self, path: Path):
        self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed by `_samples`
        self._infos = {info.name: info for info in self._tar}

    def get(self, name: str) -> bytes | None:
        """Content of a member; None where it is not there or cut off."""
        info = self._infos.get(name)
        file = None if info is None else self._tar.extractfile(info)
        content = None if file is None else file.read()
        return content if info is not None and content is not None and len(content) == info.size else None

    def close(self) -> None:
        self._tar.close()


@contextmanager
def _samples(shard: Path) -> Iterator[_Samples]:
    """A shard's members; one of object storage is copied to the scratch folder meanwhile."""
    local = shard
    try:
        if is_remote(shard):
            local = scratch_folder() / f".{shard.name}.{uuid.uuid4().hex[:12]}.tmp"
            shard.fs.get_file(shard.path, str(local))  # type: ignore[attr-defined]
        samples = _Samples(local)
    except FileNotFoundError:
        raise JobError(f"{shard}: not there, which clips.parquet names; run `voxmill annotate` again") from None
    except (tarfile.TarError, EOFError) as error:
        raise JobError(f"{shard}: damaged ({error}); run `voxmill annotate` again") from None
    try:
        yield samples
    finally:
        samples.close()
        if local is not shard:
            local.unlink(missing_ok=True)


def _with_places(table: pa.Table, places: Mapping[str, Member]) -> pa.Table:
    """The part with the new places of some clips."""
    clips = table["clip_id"].to_pylist()
    for column, field in (("shard", "name"), ("offset", "offset"), ("size", "size"), ("sha256", "sha256")):
        values = [
            getattr(places[clip], field) if clip in places else value
            for clip, value in zip(clips, table[column].to_pylist(), strict=True)
        ]
        kind = table.schema.field(column)
        table = table.set_column(table.schema.get_field_index(column), kind, pa.array(values, kind.type))
    return table
