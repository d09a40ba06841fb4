"""Rows on their way between tasks: each writes one file, divided by partition, and reads its own part of all others'.

The files lie below `work/plan/shuffle` while a large corpus is planned.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from voxmill.core.files import write_atomically
from voxmill.core.storage import read_range

_TAIL_BYTES = 8


def write_divided(path: Path, rows: pa.Table, partition: np.ndarray, count: int) -> None:
    """Writes rows so that each of `count` partitions is one range of the file.

    Args:
        partition: of every row, 0 to `count` - 1.
    """
    order = np.argsort(partition, kind="stable")
    edges = np.searchsorted(partition[order], np.arange(count + 1))
    ordered = rows.take(pa.array(order)).combine_chunks()
    content = io.BytesIO()
    ends = []
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if first < last:
            with pa.ipc.new_stream(content, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
                writer.write_table(ordered.slice(first, last - first))
        ends.append(content.tell())
    table = json.dumps(ends).encode()
    content.write(table)
    content.write(len(table).to_bytes(_TAIL_BYTES, "big"))
    write_atomically(path, content.getvalue())


def read_divided(path: Path, partition: int) -> pa.Table | None:
    """One partition of a file; None where it has no rows."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
    tail = read_range(path, max(size - 65_536, 0), min(size, 65_536))
    length = int.from_bytes(tail[-_TAIL_BYTES:], "big")
    if length + _TAIL_BYTES > len(tail):
        tail = read_range(path, size - length - _TAIL_BYTES, length + _TAIL_BYTES)
    ends = json.loads(tail[-_TAIL_BYTES - length : -_TAIL_BYTES])
    first, last = (ends[partition - 1] if partition else 0), ends[partition]
    if first == last:
        return None
    return pa.ipc.open_stream(read_range(path, first, last - first)).read_all()


def read_partition(paths: Iterator[Path], partition: int, schema: pa.Schema) -> pa.Table:
    """One partition of many files."""
    tables = [table for path in paths if (table := read_divided(path, partition)) is not None]
    return pa.concat_tables(tables) if tables else schema.empty_table()
