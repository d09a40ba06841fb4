"""Labels of voices below OUT/work/labels: a file a unit while they are made, then one a bucket.

Every labeller has a folder for each of its configurations (`<labeller>-<configuration>`), so that one can be added to a
finished dataset without running any other. Workers write `<bucket>/<unit>.json`, and for speaker vectors `.parquet`;
`merge` gathers those of a bucket in `<bucket>.parquet`. Both are looked at wherever labels are looked for, so that a
run that is ended between two steps goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Labeller, VoiceAttributesConfig
from voxmill.core.errors import JobError
from voxmill.core.files import remove_files, write_atomically
from voxmill.core.hashing import fingerprint
from voxmill.core.storage import file_names, raise_unavailable
from voxmill.data.layout import bucket_name
from voxmill.data.records import (
    Age,
    ClipId,
    Cost,
    Dialect,
    Emotion,
    Gender,
    Label,
    Prosody,
    StageName,
    VoiceLabels,
    from_json_text,
    to_json_text,
)
from voxmill.data.schemas import from_table, parquet_metadata, read_parquet, schema_of, to_table, write_parquet

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_COSTS = "costs"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnitText:
    """A row of a bucket's labels: those of a unit as JSON."""

    unit_id: str
    labels: str


class LabelStore:
    """Labels of voices below OUT, as one configuration makes them."""

    def __init__(self, out: Path, config: VoiceAttributesConfig):
        self.labellers, self._out = config.labellers, out
        self._folders: dict[Labeller, str] = {
            name: f"work/labels/{name}-{fingerprint(getattr(config, name))[:12]}" for name in config.labellers
        }
        # Of the bucket that was looked at last.
        self._bucket: int | None = None
        self._units: dict[Labeller, frozenset[str]] = {}
        self._texts: dict[Labeller, dict[str, str]] = {}
        self._vectors: dict[str, UnitLabels[np.ndarray]] | None = None

    def folders(self) -> list[str]:
        """Where the labellers of this configuration keep their answers, below OUT."""
        return list(self._folders.values())

    def path(self, name: Labeller, bucket: int, unit_id: str) -> Path:
        """Where a labeller writes its answers for a unit."""
        return self._out / self._folders[name] / bucket_name(bucket) / f"{unit_id}{_suffix(name)}"

    def merged_path(self, name: Labeller, bucket: int) -> Path:
        """Where a labeller's answers for a whole bucket lie."""
        return self._out / self._folders[name] / f"{bucket_name(bucket)}.parquet"

    def missing(self, bucket: int, unit_id: str) -> list[Labeller]:
        """Labellers that have no answers for a unit."""
        merged = self._merged_units(bucket)
        return [
            name
            for name in self.labellers
            if unit_id not in merged[name] and not self.path(name, bucket, unit_id).exists()
        ]

    def lacking(self, bucket: int) -> Callable[[str], bool]:
        """Whether a unit of a bucket has no answer of some labeller, as of now: one listing a labeller."""
        merged = self._merged_units(bucket)
        there = [merged[name] | self._loose(name, bucket) for name in self.labellers]
        return lambda unit_id: any(unit_id not in units for units in there)

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
        self._merged_units(bucket)
        prosody = self._read_text("prosody", bucket, unit_id, UnitLabels[Prosody])
        speaker = self._read_vectors(bucket, unit_id)
        gender = self._read_text("gender", bucket, unit_id, UnitLabels[Gender])
        emotion = self._read_text("emotion", bucket, unit_id, UnitLabels[Emotion])
        age = self._read_text("age", bucket, unit_id, UnitLabels[Age])
        dialect = self._read_text("dialect", bucket, unit_id, UnitLabels[Dialect])
        mos = self._read_text("mos", bucket, unit_id, UnitLabels[float])
        answers = (prosody, speaker, gender, emotion, age, dialect, mos)
        clips = dict.fromkeys(clip for one in answers for clip in one.labels)
        labels = {
            clip: VoiceLabels(
                prosody=prosody.labels.get(clip),
                speaker=speaker.labels.get(clip),
                gender=gender.labels.get(clip),
                emotion=emotion.labels.get(clip),
                age=age.labels.get(clip),
                dialect=dialect.labels.get(clip),
                mos=mos.labels.get(clip),
            )
            for clip in clips
        }
        costs: Mapping[Labeller, Cost] = {
            "prosody": prosody.cost,
            "speaker": speaker.cost,
            "gender": gender.cost,
            "emotion": emotion.cost,
            "age": age.cost,
            "dialect": dialect.cost,
            "mos": mos.cost,
        }
        return labels, {StageName(name): costs[name] for name in self.labellers}

    def is_merged(self, bucket: int) -> bool:
        """Whether no unit of a bucket has a file of its own any more."""
        return not any(self._loose(name, bucket) for name in self.labellers)

    def merge(self, bucket: int) -> None:
        """Gathers the files of a bucket's units in one a labeller, and removes them.

        Raises:
            JobError: a file is damaged.
        """
        merged = self._merged_units(bucket)
        for name in self.labellers:
            loose = sorted(self._loose(name, bucket))
            if not loose:
                continue
            new = {unit_id: self.path(name, bucket, unit_id) for unit_id in loose if unit_id not in merged[name]}
            path = self.merged_path(name, bucket)
            if name == "speaker":
                write_parquet(path, _merged_vectors(path, new))
            else:
                texts = _texts_of(path) if merged[name] else {}
                texts |= {unit_id: file.read_text(encoding="utf-8") for unit_id, file in new.items()}
                _write_texts(path, texts)
            folder = f"{self._folders[name]}/{bucket_name(bucket)}"
            remove_files(self._out, [f"{folder}/{unit_id}{_suffix(name)}" for unit_id in loose])
        self._bucket = None

    def _loose(self, name: Labeller, bucket: int) -> set[str]:
        """Units that have a file of their own."""
        suffix = _suffix(name)
        names = file_names(self.path(name, bucket, "").parent)
        return {file.removesuffix(suffix) for file in names if file.endswith(suffix) and not file.startswith(".")}

    def _merged_units(self, bucket: int) -> dict[Labeller, frozenset[str]]:
        """Units whose answers lie in the file of the bucket, by labeller."""
        if self._bucket != bucket:
            paths = {name: self.merged_path(name, bucket) for name in self.labellers}
            self._units = {name: merged_units(path) for name, path in paths.items()}
            self._bucket, self._texts, self._vectors = bucket, {}, None
        return self._units

    def _read_text(self, name: Labeller, bucket: int, unit_id: str, kind: type[UnitLabels[T]]) -> UnitLabels[T]:
        if name not in self.labellers:
            return kind()
        path, text = self.path(name, bucket, unit_id), None
        if unit_id in self._units[name]:
            path = self.merged_path(name, bucket)
            if name not in self._texts:
                self._texts[name] = _texts_of(path)
            text = self._texts[name][unit_id]
        try:
            return from_json_text(kind, path.read_bytes() if text is None else text)
        except ValueError as error:
            raise _damaged(path, error) from None

    def _read_vectors(self, bucket: int, unit_id: str) -> UnitLabels[np.ndarray]:
        if "speaker" not in self.labellers:
            return UnitLabels()
        if unit_id not in self._units["speaker"]:
            table = _vectors_of(path := self.path("speaker", bucket, unit_id))
            return UnitLabels(cost=_cost_of(path, table), labels=_vector_labels(table))
        if self._vectors is None:
            path = self.merged_path("speaker", bucket)
            table, costs = _vectors_of(path), _costs_of(path)
            ends = np.searchsorted(table["unit_id"].to_numpy(), sorted(costs), side="right").tolist()
            starts = [0, *ends[:-1]]
            self._vectors = {
                unit: UnitLabels(cost=costs[unit], labels=_vector_labels(table.slice(start, end - start)))
                for unit, start, end in zip(sorted(costs), starts, ends, strict=True)
            }
        return self._vectors[unit_id]


_KINDS: dict[Labeller, object] = {
    "prosody": UnitLabels[Prosody],
    "gender": UnitLabels[Gender],
    "emotion": UnitLabels[Emotion],
    "age": UnitLabels[Age],
    "dialect": UnitLabels[Dialect],
    "mos": UnitLabels[float],
}


def merged_units(path: Path) -> frozenset[str]:
    """Units whose labels lie in a file of a bucket; none where it is not there.

    Raises:
        JobError: it is damaged.
    """
    try:
        if _COSTS in parquet_metadata(path):
            return frozenset(_costs_of(path))
        return frozenset(read_parquet(path, ("unit_id",))["unit_id"].to_pylist())
    except FileNotFoundError:
        return frozenset()
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise_unavailable(error)
        raise _damaged(path, error) from None


def drop_units(path: Path, units: frozenset[str]) -> None:
    """Writes a file of a bucket again without these units.

    Raises:
        JobError: it is damaged.
    """
    if _COSTS not in parquet_metadata(path):
        _write_texts(path, {unit_id: text for unit_id, text in _texts_of(path).items() if unit_id not in units})
        return
    table = _vectors_of(path).filter(~pc.field("unit_id").isin(sorted(units)))
    costs = {unit_id: cost for unit_id, cost in _costs_of(path).items() if unit_id not in units}
    write_parquet(path, _vectors_of_units([table], costs))


def _suffix(name: Labeller) -> str:
    return ".parquet" if name == "speaker" else ".json"


def _damaged(path: Path, error: Exception) -> JobError:
    return JobError(f"{path}: damaged ({error}); remove it and run the command again")


def _texts_of(path: Path) -> dict[str, str]:
    """Labels by unit, as JSON."""
    try:
        return {row.unit_id: row.labels for row in from_table(_UnitText, read_parquet(path))}
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise_unavailable(error)
        raise _damaged(path, error) from None


def _write_texts(path: Path, texts: Mapping[str, str]) -> None:
    rows = [_UnitText(unit_id=unit_id, labels=labels) for unit_id, labels in sorted(texts.items())]
    write_parquet(path, to_table(rows, _UnitText))


def _write_vectors(path: Path, labels: UnitLabels[object]) -> None:
    """Speaker vectors as Arrow float32 lists, the cost beside them as metadata."""
    rows: list[_SpeakerRow] = []
    for clip_id, label in labels.labels.items():
        assert label.value is None or isinstance(label.value, np.ndarray)
        rows.append(_SpeakerRow(clip_id=clip_id, vector=label.value, reason=label.reason, error=label.error))
    table = to_table(rows, _SpeakerRow)
    write_parquet(path, table.replace_schema_metadata({"cost": to_json_text(labels.cost)}))


def _vectors_of(path: Path) -> pa.Table:
    try:
        return read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise_unavailable(error)
        raise _damaged(path, error) from None


def _cost_of(path: Path, table: pa.Table) -> Cost:
    try:
        return from_json_text(Cost, table.schema.metadata[b"cost"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _costs_of(path: Path) -> dict[str, Cost]:
    """What speaker vectors of a bucket cost, by unit; a unit without clips has a cost alone."""
    return from_json_text(dict[str, Cost], parquet_metadata(path)[_COSTS])


def _merged_vectors(path: Path, new: Mapping[str, Path]) -> pa.Table:
    """The vectors of a bucket's file with those of more units, in the order of the units."""
    tables, costs = [_vectors_of(path)] if path.exists() else [], _costs_of(path) if path.exists() else {}
    for unit_id, file in new.items():
        table = _vectors_of(file)
        costs[unit_id] = _cost_of(file, table)
        tables.append(table.add_column(0, "unit_id", pa.array([unit_id] * table.num_rows, pa.string())))
    return _vectors_of_units(tables, costs)


def _vectors_of_units(tables: Sequence[pa.Table], costs: Mapping[str, Cost]) -> pa.Table:
    """Vectors of a bucket with a column `unit_id`, in the order of the units, and what they cost as metadata."""
    schema = pa.schema([pa.field("unit_id", pa.string()), *schema_of(_SpeakerRow)])
    whole = pa.concat_tables([table.select(schema.names).cast(schema) for table in tables])
    whole = whole.take(pc.sort_indices(whole["unit_id"])).combine_chunks()
    return whole.replace_schema_metadata({_COSTS: to_json_text(dict(sorted(costs.items())), dict[str, Cost])})


def _vector_labels(table: pa.Table) -> dict[ClipId, Label[np.ndarray]]:
    """Labels by clip. Vectors are cut from one array: a list of numbers a clip would take most of the reading."""
    lists = table["vector"].combine_chunks()
    values = lists.values.to_numpy(zero_copy_only=False)
    ends, there = lists.offsets.to_numpy(), lists.is_valid().to_numpy(zero_copy_only=False)
    names = table.select(["clip_id", "reason", "error"]).to_pydict()
    rows = zip(names["clip_id"], names["reason"], names["error"], there.tolist(), ends[:-1], ends[1:], strict=True)
    return {
        clip_id: Label(value=values[start:end] if valid else None, reason=reason, error=error)
        for clip_id, reason, error, valid, start, end in rows
    }
