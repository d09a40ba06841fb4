"""Files of finished work units below OUT/work: results of the stages and the clips' audio.

A unit's tar begins with `unit.json`, a `WorkUnit` without its costs; then comes every candidate clip as FLAC. What it
cost, which is another text each time, is last (`costs.json`): `rejected.parquet` names where a clip lies, and that
depends on the labels and the audio alone.
"""

import dataclasses
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from voxmill.core.errors import JobError, UserError
from voxmill.data.layout import bucket_name
from voxmill.data.records import ClipId, Cost, StageName, WorkUnit, from_json_text, to_json_text
from voxmill.data.shards import TarWriter

FORMAT = 3
"""Of unit files and of the mark of an OUT; 2 had no buckets, 1 labels as plain dicts."""
OLD_FORMAT = "was written by an older voxmill; start again in an empty OUT"
_COSTS = "costs.json"
_Costs = dict[StageName, Cost]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUnit:
    """A finished unit and (offset, bytes) of every clip's FLAC in its file."""

    unit: WorkUnit
    places: dict[ClipId, tuple[int, int]]


def unit_path(out: Path, bucket: int, unit_id: str) -> Path:
    """Where a unit's finished file lies: its labels and the audio of all its candidate clips."""
    return out / "work" / "units" / bucket_name(bucket) / f"{unit_id}.tar"


def write_unit(path: Path, unit: WorkUnit, flacs: Iterable[tuple[ClipId, bytes]] = ()) -> None:
    """Writes a finished unit, whole or not at all."""
    with TarWriter(path) as tar:
        labels = to_json_text(dataclasses.replace(unit, costs={}))
        tar.add("unit.json", f'{{"format":{FORMAT},{labels[1:]}'.encode())
        for clip_id, content in flacs:
            tar.add(f"{clip_id}.flac", content)
        tar.add(_COSTS, to_json_text(unit.costs, _Costs).encode())


def read_unit(path: Path) -> StoredUnit:
    """A finished unit.

    Raises:
        JobError: the file is not a unit or is damaged.
        UserError: it has an older format.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = list(tar)
            content = tar.extractfile(members[0]) if members and members[0].name == "unit.json" else None
            if content is None:
                raise JobError(f"{path}: not a work unit; remove it and run the command again")
            text = content.read()
            last = tar.extractfile(members.pop()) if members[-1].name == _COSTS else None
            costs = None if last is None else last.read()
    except tarfile.TarError as error:
        raise JobError(f"{path}: damaged ({error}); remove it and run the command again") from None
    try:
        # `format` is the first key: a unit of an older format need not have the rest.
        if not text.startswith(f'{{"format":{FORMAT},'.encode()):
            raise UserError(f"{path} {OLD_FORMAT}")
        unit = from_json_text(WorkUnit, text)
        # Older ones have their costs in `unit.json`.
        if costs is not None:
            unit = dataclasses.replace(unit, costs=from_json_text(_Costs, costs))
    except ValueError as error:
        raise JobError(f"{path}: damaged ({error}); remove it and run the command again") from None
    places = {info.name.removesuffix(".flac"): (info.offset_data, info.size) for info in members[1:]}
    return StoredUnit(unit=unit, places=places)
