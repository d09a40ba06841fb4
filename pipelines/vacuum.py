"""`voxmill vacuum`: removes what a dataset does not name any more, and nothing else.

Only files whose names the jobs themselves make are looked at, in the folders where they make them; links are never
followed. What goes: clip shards that neither `dataset.json`, nor one of the kept earlier states, nor `clips.parquet`
names; latent shards that `latents.parquet` does not name; units and labels of units that are no longer planned, and of
configurations of labellers that are no longer used; norms; temporary files. Ended anywhere, it can be run again.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from pipelines.compact import require_snapshot
from pipelines.config import LabelConfig, VoiceAttributesConfig
from pipelines.report.run_record import read_run
from pipelines.units.label_store import LabelStore, drop_units, merged_units
from pipelines.units.plan_files import planned_buckets, read_units
from pipelines.units.workspace import Workspace
from voxmill.core.errors import UserError
from voxmill.core.files import StoredFile, list_files, remove_files
from voxmill.core.storage import file_names
from voxmill.data.layout import INDEXES, bucket_name, index_parts, part_path, stream_index
from voxmill.data.snapshot import EARLIER, EARLIER_NAME, Snapshot, earlier_snapshots, read_snapshot_file

Kind = Literal["shards", "latents", "units", "labels", "norms", "snapshots", "temporary"]
KINDS: tuple[Kind, ...] = ("shards", "latents", "units", "labels", "norms", "snapshots", "temporary")

_SHARD = re.compile(r"clips-.*\.tar")
_LATENTS = re.compile(r"latents-.*\.tar")
_RESULT = re.compile(r"[0-9a-f]{24}\.json")
_UNIT = re.compile(r"([0-9a-f]{32})\.(tar|json|parquet)")
_NORMS = re.compile(r"norms-.*\.json|speakers-.*\.parquet")
_BUCKET = re.compile(r"[0-9a-f]{4}")
_MERGED = re.compile(r"[0-9a-f]{4}\.parquet")
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}\.tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unnamed:
    """A file that nothing names, and why it was looked at.

    units: of a file of labels that stays for the sake of others, the units that go; `file.size` is their share of it.
    """

    kind: Kind
    file: StoredFile
    units: frozenset[str] = frozenset()


def vacuum(out: Path, *, keep: int, dry_run: bool) -> list[Unnamed]:
    """Removes what nothing names from OUT; returns what it removed, or would.

    Args:
        keep: so many states before the present one keep their shards, for readers that still have them open.

    Raises:
        UserError: OUT has no `dataset.json`, another job works there, or it cannot be written.
    """
    require_snapshot(out)
    with ExitStack() as stack:
        stack.enter_context(Workspace(out).hold())
        stack.enter_context(Workspace(out, "latents").hold())
        # Read once more: the job that held OUT before may have written another.
        snapshot = require_snapshot(out)
        found = sorted(_unnamed(out, snapshot, keep), key=lambda one: (KINDS.index(one.kind), one.file.name))
        if not dry_run:
            try:
                for one in found:
                    if one.units:
                        drop_units(out / one.file.name, one.units)
                # What keeps shards alive goes after them: a run that is ended between them is repeated alike.
                whole = [one for one in found if not one.units]
                for late in (False, True):
                    remove_files(out, [one.file.name for one in whole if (one.kind == "snapshots") == late])
            except PermissionError as error:
                raise UserError(f"{out}: cannot be written ({error.strerror}); nothing more was removed") from None
    return found


def _unnamed(out: Path, snapshot: Snapshot, keep: int) -> Iterator[Unnamed]:
    earlier = earlier_snapshots(out)
    kept = earlier[len(earlier) - keep :] if keep else []
    states = [snapshot, *map(read_snapshot_file, kept)]
    yield from _of(out, "snapshots", EARLIER, {f"{EARLIER}/{path.name}" for path in kept}, EARLIER_NAME)

    shards = {shard.name for state in states for files in state.files for shard in files.shards}
    yield from _of(out, "shards", "shards", shards | _named_by(out / "clips.parquet"), _SHARD)
    yield from _latents(out)
    norms = {state.norms for state in states}
    if None not in norms:
        named = {str(name) for name in norms} | {name for state in states for name in state.speakers}
        yield from _of(out, "norms", "norms", named, _NORMS)
    yield from _units(out, snapshot.buckets)
    for folder in ("", "shards", "latents", "norms", EARLIER, "work", *INDEXES):
        for file in list_files(out, folder, recursive=folder != ""):
            if _TEMPORARY.fullmatch(file.name.rpartition("/")[2]):
                yield Unnamed(kind="temporary", file=file)


def _of(out: Path, kind: Kind, folder: str, named: set[str], pattern: re.Pattern[str]) -> Iterator[Unnamed]:
    for file in list_files(out, folder):
        if file.name not in named and pattern.fullmatch(file.name.rpartition("/")[2]):
            yield Unnamed(kind=kind, file=file)


def _named_by(index: Path) -> set[str]:
    """Values of the column `shard` of an index, or of a part of one.

    Raises:
        UserError: a part cannot be read, so that nothing is known of what it names.
    """
    names: set[str] = set()
    try:
        for piece in stream_index(index, ["shard"]):
            names.update(filter(None, piece["shard"].unique().to_pylist()))
    except FileNotFoundError:
        raise UserError(f"{index}: not there; nothing is removed") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{index}: cannot be read ({reason}); nothing is removed") from None
    return names


def _latents(out: Path) -> Iterator[Unnamed]:
    """Of a dataset that is encoded whole; what an unfinished `voxmill encode` has made, it will find again."""
    clips = {path.name for path in index_parts(out / "clips.parquet")}
    latents = {path.name.replace("latents", "clips") for path in index_parts(out / "latents.parquet")}
    if not (out / "latents.json").is_file() or clips - latents:
        return
    named = _named_by(out / "latents.parquet")
    yield from _of(out, "latents", "latents", named, _LATENTS)
    units = {name.rpartition("latents-")[2].removesuffix(".tar") for name in named}
    for file in list_files(out, "work/latents"):
        name = file.name.rpartition("/")[2]
        if _RESULT.fullmatch(name) and name.removesuffix(".json") not in units:
            yield Unnamed(kind="latents", file=file)


def _units(out: Path, buckets: int) -> Iterator[Unnamed]:
    """Units that are no longer planned and their labels; labels of configurations that `run.json` does not name."""
    identity, planned = Workspace(out).identity(), set(planned_buckets(out))
    if identity is None or not planned:
        return
    label = LabelConfig.model_validate(identity)
    config = read_run(out).get("config") or {}
    voices = VoiceAttributesConfig.model_validate(config.get("voice_attributes") or {})
    used = set(LabelStore(out, voices).folders())
    for name in sorted(file_names(out / "work" / "labels")):
        if f"work/labels/{name}" not in used:
            yield from (Unnamed(kind="labels", file=file) for file in list_files(out, f"work/labels/{name}"))
    kinds: list[tuple[Kind, str]] = [("units", "work/units"), *(("labels", folder) for folder in sorted(used))]
    for folder in sorted(used):
        for file in list_files(out, folder, recursive=False):
            if _MERGED.fullmatch(file.name.rpartition("/")[2]):
                yield from _unplanned_labels(out, file, planned, label)
    names = {name for _, folder in kinds for name in file_names(out / folder) if _BUCKET.fullmatch(name)}
    for name in sorted(names):
        bucket = int(name, 16)
        units = _planned(out, bucket, label) if bucket in planned else set[str]()
        part = part_path(out, "rejected.parquet", min(bucket, buckets - 1), buckets)
        audio = _named_by(part) if part.is_file() else set[str]()
        for kind, folder in kinds:
            for file in list_files(out, f"{folder}/{name}"):
                unit = _unit_of(file)
                if unit is not None and unit not in units and file.name not in audio:
                    yield Unnamed(kind=kind, file=file)


def _unplanned_labels(out: Path, file: StoredFile, planned: set[int], label: LabelConfig) -> Iterator[Unnamed]:
    """Labels in a bucket's file of units that are not planned any more.

    Raises:
        UserError: the plan of the bucket cannot be read.
    """
    bucket = int(file.name.rpartition("/")[2].partition(".")[0], 16)
    units = merged_units(out / file.name)
    gone = units - (_planned(out, bucket, label) if bucket in planned else set())
    if gone == units:
        yield Unnamed(kind="labels", file=file)
    elif gone:
        share = StoredFile(name=file.name, size=file.size * len(gone) // len(units))
        yield Unnamed(kind="labels", file=share, units=gone)


def _planned(out: Path, bucket: int, label: LabelConfig) -> set[str]:
    """Units of a bucket's plan.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return {unit.unit_id for unit in read_units(out, bucket, label)}
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{out}: the plan of bucket {bucket_name(bucket)} cannot be read ({reason}); "
            "nothing is removed; run `voxmill annotate` again"
        ) from None


def _unit_of(file: StoredFile) -> str | None:
    """The unit that a file is of; None where it is of none."""
    match = _UNIT.fullmatch(file.name.rpartition("/")[2])
    return match[1] if match else None
