"""Files of finished work units below OUT/work: results of the stages, the clips' audio, the labels of their voices.

A unit's tar begins with `unit.json`, a `WorkUnit`; then comes every candidate clip as FLAC. Every voice labeller has a
file a unit of its own (`work/labels/<labeller>-<configuration>/<bucket>/`), so that one can be added to a finished
dataset without running any other: JSON, and for speaker vectors Parquet.
"""

import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from pipelines.config import Labeller, VoiceAttributesConfig
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint
from voxmill.core.storage import file_names
from voxmill.data.layout import bucket_name
from voxmill.data.records import (
    Age,
    ClipId,
    Cost,
    Emotion,
    Gender,
    Label,
    Prosody,
    StageName,
    VoiceLabels,
    WorkUnit,
    from_json_text,
    to_json_text,
)
from voxmill.data.schemas import from_table, read_parquet, to_table, write_parquet
from voxmill.data.shards import TarWriter

FORMAT = 3
"""Of unit files and of the mark of an OUT; 2 had no buckets, 1 labels as plain dicts."""
OLD_FORMAT = "was written by an older voxmill; start again in an empty OUT"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


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
        tar.add("unit.json", f'{{"format":{FORMAT},{to_json_text(unit)[1:]}'.encode())
        for clip_id, content in flacs:
            tar.add(f"{clip_id}.flac", content)


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
    except tarfile.TarError as error:
        raise JobError(f"{path}: damaged ({error}); remove it and run the command again") from None
    try:
        # `format` is the first key: a unit of an older format need not have the rest.
        if not text.startswith(f'{{"format":{FORMAT},'.encode()):
            raise UserError(f"{path} {OLD_FORMAT}")
        unit = from_json_text(WorkUnit, text)
    except ValueError as error:
        raise JobError(f"{path}: damaged ({error}); remove it and run the command again") from None
    places = {info.name.removesuffix(".flac"): (info.offset_data, info.size) for info in members[1:]}
    return StoredUnit(unit=unit, places=places)


# ---- labels of voices


@dataclass(frozen=True, kw_only=True)
class UnitLabels(Generic[T_co]):
    """One labeller's answers for the clips of one unit, and their cost."""

    cost: Cost = field(default_factory=Cost)
    labels: Mapping[ClipId, Label[T_co]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SpeakerRow:
    """A row of a unit's speaker vectors."""

    clip_id: ClipId
    vector: np.ndarray | None
    reason: str
    error: str


class LabelStore:
    """Labels of voices below OUT, as one configuration makes them."""

    def __init__(self, out: Path, config: VoiceAttributesConfig):
        self.labellers = config.labellers
        folder = out / "work" / "labels"
        self._folders: dict[Labeller, Path] = {
            name: folder / f"{name}-{fingerprint(getattr(config, name))[:12]}" for name in config.labellers
        }

    def folders(self) -> list[Path]:
        """Where the labellers of this configuration keep their answers."""
        return list(self._folders.values())

    def path(self, name: Labeller, bucket: int, unit_id: str) -> Path:
        """Where a labeller keeps its answers for a unit."""
        suffix = "parquet" if name == "speaker" else "json"
        return self._folders[name] / bucket_name(bucket) / f"{unit_id}.{suffix}"

    def missing(self, bucket: int, unit_id: str) -> list[Labeller]:
        """Labellers that have no file for a unit."""
        return [name for name in self.labellers if not self.path(name, bucket, unit_id).exists()]

    def lacking(self, bucket: int) -> Callable[[str], bool]:
        """Whether a unit of a bucket has no answer of some labeller, as of now: one listing a labeller."""
        there = {name: file_names(self.path(name, bucket, "").parent) for name in self.labellers}
        return lambda unit_id: any(self.path(name, bucket, unit_id).name not in names for name, names in there.items())

    def write_nothing(self, bucket: int, unit_id: str) -> None:
        """Gives a unit files without labels where it lacks them."""
        for name in self.missing(bucket, unit_id):
            self.write(name, bucket, unit_id, UnitLabels())

    def write(self, name: Labeller, bucket: int, unit_id: str, labels: UnitLabels[object]) -> None:
        """Writes a labeller's answers for a unit, whole or not at all."""
        path = self.path(name, bucket, unit_id)
        if name == "speaker":
            _write_vectors(path, labels)
        else:
            write_atomically(path, to_json_text(labels, _KINDS[name]))

    def read(self, bucket: int, unit_id: str) -> tuple[dict[ClipId, VoiceLabels], dict[StageName, Cost]]:
        """Answers by clip, of all labellers, and the labellers' costs.

        Raises:
            JobError: a file is damaged.
        """
        prosody = self._json("prosody", bucket, unit_id, UnitLabels[Prosody])
        speaker = self._vectors(bucket, unit_id)
        gender = self._json("gender", bucket, unit_id, UnitLabels[Gender])
        emotion = self._json("emotion", bucket, unit_id, UnitLabels[Emotion])
        age = self._json("age", bucket, unit_id, UnitLabels[Age])
        clips = dict.fromkeys([*prosody.labels, *speaker.labels, *gender.labels, *emotion.labels, *age.labels])
        labels = {
            clip: VoiceLabels(
                prosody=prosody.labels.get(clip),
                speaker=speaker.labels.get(clip),
                gender=gender.labels.get(clip),
                emotion=emotion.labels.get(clip),
                age=age.labels.get(clip),
            )
            for clip in clips
        }
        costs: Mapping[Labeller, Cost] = {
            "prosody": prosody.cost,
            "speaker": speaker.cost,
            "gender": gender.cost,
            "emotion": emotion.cost,
            "age": age.cost,
        }
        return labels, {StageName(name): costs[name] for name in self.labellers}

    def _json(self, name: Labeller, bucket: int, unit_id: str, kind: type[UnitLabels[T]]) -> UnitLabels[T]:
        if name not in self.labellers:
            return kind()
        path = self.path(name, bucket, unit_id)
        try:
            return from_json_text(kind, path.read_bytes())
        except ValueError as error:
            raise JobError(f"{path}: damaged ({error}); remove it and run the command again") from None

    def _vectors(self, bucket: int, unit_id: str) -> UnitLabels[np.ndarray]:
        return _read_vectors(self.path("speaker", bucket, unit_id)) if "speaker" in self.labellers else UnitLabels()


_KINDS: dict[Labeller, object] = {
    "prosody": UnitLabels[Prosody],
    "gender": UnitLabels[Gender],
    "emotion": UnitLabels[Emotion],
    "age": UnitLabels[Age],
}


def _write_vectors(path: Path, labels: UnitLabels[object]) -> None:
    """Speaker vectors as Arrow float32 lists, the cost beside them as metadata."""
    rows: list[_SpeakerRow] = []
    for clip_id, label in labels.labels.items():
        assert label.value is None or isinstance(label.value, np.ndarray)
        rows.append(_SpeakerRow(clip_id=clip_id, vector=label.value, reason=label.reason, error=label.error))
    table = to_table(rows, _SpeakerRow)
    write_parquet(path, table.replace_schema_metadata({"cost": to_json_text(labels.cost)}))


def _read_vectors(path: Path) -> UnitLabels[np.ndarray]:
    try:
        table = read_parquet(path)
        cost = from_json_text(Cost, table.schema.metadata[b"cost"])
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise JobError(f"{path}: damaged ({error}); remove it and run the command again") from None
    rows = from_table(_SpeakerRow, table)
    labels = {row.clip_id: Label(value=row.vector, reason=row.reason, error=row.error) for row in rows}
    return UnitLabels(cost=cost, labels=labels)
