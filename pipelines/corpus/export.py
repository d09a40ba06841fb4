"""A finished dataset as the released fine-tuning script's JSONL: audio from the shards, labels from the index."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from annotation.descriptions.describer import Description
from annotation.descriptions.verification import Verdict
from pipelines.corpus.finetune_jsonl import FinetuneClip, FinetuneConfig, export_finetune
from voxmill.core.errors import UserError
from voxmill.data.records import Reference
from voxmill.data.shards import read_member

_COLUMNS = ["clip_id", "text", "modes", "descriptions", "references", "shard", "offset", "size"]


def export(out: Path, folder: Path, config: FinetuneConfig) -> dict[str, int]:
    """Writes `folder/train.jsonl` and `folder/audio/`; returns counts of rows by mode and of what was left out.

    Raises:
        UserError: OUT is no finished dataset, or the folder holds a manifest already.
    """
    index = out / "clips.parquet"
    if not index.exists():
        raise UserError(f"{out}: no clips.parquet there; name the OUT of a finished `voxmill annotate`")
    rows = pq.read_table(index, columns=_COLUMNS).to_pylist()
    return export_finetune(folder, _clips(out, rows), config)


def _clips(out: Path, rows: list[dict[str, Any]]) -> Iterator[FinetuneClip]:
    import soundfile

    for row in rows:
        content = read_member(out, row["shard"], row["offset"], row["size"])
        audio, rate = soundfile.read(io.BytesIO(content), dtype="float32")
        yield FinetuneClip(
            row["clip_id"],
            audio,
            rate,
            row["text"],
            row["modes"] or [],
            [_description(plain) for plain in row["descriptions"] or []],
            [Reference(found["clip_id"], found["similarity"]) for found in row["references"] or []],
        )


def _description(plain: dict[str, Any]) -> Description:
    facts = {fact["attribute"]: fact["word"] for fact in plain["facts"]}
    return Description(**plain | {"facts": facts, "verdicts": [Verdict(**verdict) for verdict in plain["verdicts"]]})
