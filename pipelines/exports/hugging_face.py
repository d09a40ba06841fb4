"""Clips as a data set of Hugging Face: Parquet with the audio's bytes and every label, and a card.

`datasets.load_dataset(FOLDER)` reads it, and `huggingface_hub` uploads the folder as it is. A file has clips of one
bucket; the schema's metadata say that `audio` is sound, which other readers see as bytes and a name.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.exports.stored_audio import stored_flac
from voxmill.core.files import atomic_path, write_atomically
from voxmill.data.dataset import Dataset
from voxmill.data.records import ShardPlace
from voxmill.data.schemas import CLIPS, PLACE_COLUMNS, from_table

FILE_BYTES = 500_000_000
"""Of audio in a Parquet file."""
GROUP_BYTES, GROUP_ROWS = 64_000_000, 100
"""Of audio in a row group, which readers hold in memory, and its rows."""
_LABELS = tuple(name for name in CLIPS.names if name not in PLACE_COLUMNS)
_AUDIO = pa.field("audio", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]))
_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
task_categories:
- text-to-speech
- automatic-speech-recognition
---

# Clips by voxmill

A row is a clip: `audio` (FLAC, mono), `text`, `words` with their times from the clip's start, `language`, `speaker`,
and the labels of the index. `start_sample` and `end_sample` are its place in the recording `path`, at `sample_rate`.
`licence` is that of the manifest; check it before you publish.
"""


def export_hugging_face(
    dataset: Dataset,
    folder: Path,
    counts: Counter[str],
    *,
    file_bytes: int = FILE_BYTES,
    group_bytes: int = GROUP_BYTES,
) -> None:
    """Writes `data/*.parquet` and `README.md`; a file that is there already stays.

    Args:
        file_bytes, group_bytes: of the clips' audio in a file and in a row group, at most, where it is not one clip.

    Raises:
        UserError: a shard or index is damaged.
    """
    schema = pa.schema([CLIPS.field(name) for name in _LABELS])
    for bucket, table in enumerate(dataset.tables((*_LABELS, *PLACE_COLUMNS))):
        places = from_table(ShardPlace, table)
        # A part that an older version wrote may lack fields of structs.
        labels = pa.concat_tables([schema.empty_table(), table.select(_LABELS)], promote_options="permissive")
        for number, rows in enumerate(_runs([place.size for place in places], file_bytes)):
            path = folder / "data" / f"train-{bucket:05d}-{number:05d}.parquet"
            if not path.exists():
                mine = slice(rows.start, rows.stop)
                _write_file(path, dataset, labels[mine], places[mine], group_bytes)
            counts["clips"] += len(rows)
            counts["files"] += 1
    write_atomically(folder / "README.md", _CARD)


def _write_file(path: Path, dataset: Dataset, labels: pa.Table, places: Sequence[ShardPlace], group_bytes: int) -> None:
    schema = pa.schema([_AUDIO, *labels.schema], metadata={"huggingface": json.dumps(_features(labels.schema))})
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for rows in _runs([place.size for place in places], group_bytes, GROUP_ROWS):
            part = labels[rows.start : rows.stop]
            audio = [
                {"bytes": stored_flac(dataset, place, clip_id), "path": f"{clip_id}.flac"}
                for place, clip_id in zip(places[rows.start : rows.stop], part["clip_id"].to_pylist(), strict=True)
            ]
            columns = [pa.array(audio, _AUDIO.type), *part.columns]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(rows))


def _runs(sizes: Sequence[int], limit: int, most: int | None = None) -> Iterator[range]:
    """Rows that follow one another, together of at most `limit` bytes, or one; at most `most` rows."""
    start = total = 0
    for row, size in enumerate(sizes):
        if row > start and (total + size > limit or row - start == most):
            yield range(start, row)
            start, total = row, 0
        total += size
    if sizes:
        yield range(start, len(sizes))


_Feature = dict[str, "str | _Feature"] | list["_Feature"]


def _features(labels: pa.Schema) -> dict[str, dict[str, dict[str, _Feature]]]:
    """What `datasets` keeps in a schema's metadata."""
    features: dict[str, _Feature] = {"audio": {"_type": "Audio"}}
    return {"info": {"features": features | {field.name: _feature(field.type) for field in labels}}}


def _feature(kind: pa.DataType) -> _Feature:
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        # All versions of `datasets` read a list of one.
        return [_feature(kind.value_type)]
    names = {pa.float64(): "float64", pa.int64(): "int64", pa.bool_(): "bool", pa.string(): "string"}
    return {"dtype": names[kind], "_type": "Value"}
