"""Arrow schemas derived from the records, tables of records, and the one writer of the Parquet indexes. Free of Ray.

Every column may hold nulls, as is Arrow's own default; the records' `X | None` tells which ones do.
"""

import dataclasses
import enum
import io
import itertools
import types
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from voxmill.core.files import write_atomically
from voxmill.data.records import Clip, Latent, Recording, RejectedClip, ShardMetadata, ShardPlace

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")

_SCALARS: dict[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}


def schema_of(kind: "type[DataclassInstance]", vector_size: int | None = None) -> pa.Schema:
    """The schema of a record: one column a field, in the fields' order.

    `int` is int64, `float` float64, `X | None` the type of X, a dataclass a struct, `tuple[X, ...]` a list, a literal
    the type of its values, `np.ndarray` a fixed-size list of `vector_size` float32, or a list of any size without it:
    Parquet gives no fixed-size list back in which one entry is null.

    Raises:
        TypeError: a field has a type that no column can hold.
    """
    return pa.schema(_fields(kind, vector_size))


def _fields(kind: "type[DataclassInstance]", vector_size: int | None) -> list[pa.Field]:
    return [pa.field(name, _arrow_type(hint, vector_size)) for name, hint in _hints(kind).items()]


@cache
def _hints(kind: "type[DataclassInstance]") -> Mapping[str, object]:
    """Types of a record's fields by name, in order."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _arrow_type(hint: object, vector_size: int | None) -> pa.DataType:
    hint = _without_none(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return pa.string()
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return pa.struct(_fields(hint, vector_size))
    if hint is np.ndarray:
        return pa.list_(pa.float32()) if vector_size is None else pa.list_(pa.float32(), vector_size)
    inner = get_args(hint)
    if get_origin(hint) is Literal and len({type(value) for value in inner}) == 1:
        return _SCALARS[type(inner[0])]
    if get_origin(hint) is tuple and len(inner) == 2 and inner[1] is ...:
        return pa.list_(_arrow_type(inner[0], vector_size))
    raise TypeError(f"no column holds a {hint!r}")


def _without_none(hint: object) -> object:
    if get_origin(hint) in (Union, types.UnionType):
        inner = [kind for kind in get_args(hint) if kind is not type(None)]
        if len(inner) == 1:
            return inner[0]
    return hint


CLIPS = schema_of(Clip)
REJECTED = schema_of(RejectedClip)
RECORDINGS = schema_of(Recording)
LATENTS = schema_of(Latent)
# Columns of CLIPS: what a clip's `.json` in the shard has too, and where the clip lies.
METADATA_COLUMNS: tuple[str, ...] = tuple(_hints(ShardMetadata))
PLACE_COLUMNS: tuple[str, ...] = tuple(_hints(ShardPlace))


def columns_of(kind: "type[DataclassInstance]") -> tuple[str, ...]:
    """Names of a record's columns."""
    return tuple(_hints(kind))


def to_table(records: Sequence[R], kind: type[R], vector_size: int | None = None) -> pa.Table:
    """Records as a table, one column a field; built column by column, without a dict a record."""
    columns = [
        _column(hint, [getattr(record, name) for record in records], vector_size) for name, hint in _hints(kind).items()
    ]
    return pa.table(columns, schema=schema_of(kind, vector_size))


def _column(hint: object, values: list[Any], vector_size: int | None) -> pa.Array:
    """The values of one field: structs by their fields, lists flattened, both with a mask of nulls."""
    hint = _without_none(hint)
    is_null = pa.array([value is None for value in values], pa.bool_())
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        children = [
            _column(inner, [None if value is None else getattr(value, name) for value in values], vector_size)
            for name, inner in _hints(hint).items()
        ]
        return pa.StructArray.from_arrays(children, fields=_fields(hint, vector_size), mask=is_null)
    if get_origin(hint) is tuple:
        offsets = itertools.accumulate((0 if value is None else len(value) for value in values), initial=0)
        items = [item for value in values if value is not None for item in value]
        column = _column(get_args(hint)[0], items, vector_size)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), column, mask=is_null)
    return pa.array(values, _arrow_type(hint, vector_size))


def from_table(kind: type[R], table: pa.Table) -> list[R]:
    """The records of a table; a null list is an empty one, what an older table lacks has the record's default."""
    names = [name for name in _hints(kind) if name in table.schema.names]
    rows: Iterable[Mapping[str, object]] = table.select(names).to_pylist()
    return [_record(kind, row) for row in rows]


def _record(kind: type[R], row: Mapping[str, object]) -> R:
    hints = _hints(kind).items()
    return kind(**{name: _value(_without_none(hint), row[name]) for name, hint in hints if name in row})


def _value(hint: object, value: object) -> object:
    if get_origin(hint) is tuple:
        assert value is None or isinstance(value, list)
        return tuple(_value(_without_none(get_args(hint)[0]), item) for item in value or ())
    if value is None:
        return None
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        assert isinstance(value, dict)
        return _record(hint, value)
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return hint(str(value))
    return np.asarray(value, dtype=np.float32) if hint is np.ndarray else value


def write_index(path: Path, schema: pa.Schema, rows: Sequence[Mapping[str, object]]) -> None:
    """One Parquet file, written whole and renamed into place; a column that a row lacks is null there."""
    names = schema.names
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows], schema=schema)
    write_parquet(path, table)


def write_parquet(path: Path, table: pa.Table) -> None:
    """A table as one Parquet file, written whole and renamed into place."""
    write_atomically(path, parquet_bytes(table))


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the content of a Parquet file; the same table gives the same bytes."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        # A row group without rows is what `datasets` cannot read.
        if table.num_rows:
            writer.write_table(table)
    return buffer.getvalue()


def parquet_metadata(path: Path) -> dict[str, str]:
    """What a Parquet file says of itself beside its columns."""
    with path.open("rb") as file:
        metadata = pq.read_schema(file).metadata or {}
    return {name.decode(): value.decode() for name, value in metadata.items()}


def parquet_rows(path: Path) -> int:
    """Rows of a Parquet file, by its footer."""
    with path.open("rb") as file:
        return int(pq.read_metadata(file).num_rows)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file whole; of `columns`, those that it has.

    Raises:
        FileNotFoundError: it is not there.
        pa.ArrowException, OSError: it cannot be read.
    """
    with path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        known = None if columns is None else [name for name in columns if name in parquet.schema_arrow.names]
        return parquet.read(columns=known)
