"""From finished units to the indexes: gather, select, number. Runs no model and is always repeatable."""

import io
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.annotate_config import AnnotateConfig
from pipelines.selection import Verdict, judge
from pipelines.shards import write_atomically
from pipelines.units import Unit, read_unit, unit_path

UNITS_A_TASK = 64
_WORD = pa.struct(
    [("word", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("probability", pa.float64())]
)
_QUALITY = pa.struct(
    [(name, pa.float64()) for name in (
        "dnsmos_sig", "dnsmos_bak", "dnsmos_ovr", "dnsmos_p808", "snr_db", "clipping", "bandwidth_hz",
        "loudness_lufs", "gain_db", "dc_offset",
    )]
)  # fmt: skip
_TRANSCRIPT = pa.struct(
    [
        ("compression_ratio", pa.float64()), ("repeated_ngram", pa.float64()), ("characters_per_second", pa.float64()),
        ("text_language", pa.string()), ("text_language_probability", pa.float64()),
        ("mean_log_probability", pa.float64()), ("no_speech_probability", pa.float64()), ("redecoded", pa.bool_()),
        ("aligner", pa.string()), ("given_wer", pa.float64()),
    ]
)  # fmt: skip
CLIP_FIELDS: list[tuple[str, Any]] = [
    ("clip_id", pa.string()), ("recording_id", pa.string()), ("session", pa.string()), ("position", pa.int64()),
    ("start_sample", pa.int64()), ("end_sample", pa.int64()), ("sample_rate", pa.int64()), ("duration", pa.float64()),
    ("text", pa.string()), ("words", pa.list_(_WORD)), ("language", pa.string()),
    ("language_probability", pa.float64()), ("speaker", pa.string()), ("turn", pa.int64()), ("origin", pa.string()),
    ("cut", pa.string()), ("quality", _QUALITY), ("transcript", _TRANSCRIPT), ("licence", pa.string()),
    ("stages", pa.list_(pa.int64())), ("shard", pa.string()), ("offset", pa.int64()), ("size", pa.int64()),
    ("sha256", pa.string()),
]  # fmt: skip
_VERDICT: list[tuple[str, Any]] = [
    ("stage", pa.string()), ("reason", pa.string()), ("value", pa.float64()), ("threshold", pa.float64()),
]  # fmt: skip
CLIPS = pa.schema(CLIP_FIELDS)
REJECTED = pa.schema([*CLIP_FIELDS, *_VERDICT])
RECORDINGS = pa.schema(
    [
        ("recording_id", pa.string()), ("path", pa.string()), ("session", pa.string()), ("state", pa.string()),
        *_VERDICT, ("detail", pa.string()), ("duration", pa.float64()), ("sample_rate", pa.int64()),
        ("channels", pa.int64()), ("codec", pa.string()), ("num_clips", pa.int64()), ("num_kept", pa.int64()),
        ("separated", pa.bool_()), ("separation", pa.string()), ("licence", pa.string()),
    ]
)  # fmt: skip


@dataclass
class Gathered:
    """What the finished units say: clips in order, how each part ended, and the compute that each stage took."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def gather(units: list[Unit], out: Path, config: AnnotateConfig) -> Gathered:
    """Reads every unit's labels, applies selection and drops clips that were met before (same audio, same bounds)."""
    found = Gathered()
    seen: set[str] = set()
    for unit, (state, places) in zip(units, _read_units(units, out), strict=True):
        path = str(unit_path(Path(), unit.unit_id))
        for name, spent in state.get("stages", {}).items():
            total = found.stages.setdefault(name, {"seconds": 0.0, "audio_seconds": 0.0, "calls": 0})
            for key in total:
                total[key] += spent[key]
        for part in state["parts"]:
            found.parts.setdefault(part["recording_id"], []).append(part)
            for clip in part.get("clips", []) if "end" not in part else []:
                row = _clip_row(part, clip)
                offset, size = places[f"{row['clip_id']}.flac"]
                row |= {"shard": path, "offset": offset, "size": size, "sha256": None, "position": None}
                verdict = judge(row, config.select)
                if verdict is None and row["clip_id"] in seen:
                    verdict = Verdict("select", "duplicate_clip", None, None)
                if verdict is None:
                    seen.add(row["clip_id"])
                    found.kept.append(row)
                else:
                    found.rejected.append(row | asdict(verdict))
    found.kept.sort(key=lambda row: (row["session"], row["order"]))
    position: dict[str, int] = {}
    for row in found.kept:
        row["position"] = position.get(row["session"], 0)
        position[row["session"]] = row["position"] + 1
    return found


def _read_units(units: list[Unit], out: Path) -> Iterator[tuple[dict[str, Any], dict[str, tuple[int, int]]]]:
    """Labels and member places of every unit, in order, read by Ray tasks."""
    import ray

    @ray.remote(num_cpus=0.5)
    def read(paths: list[str]) -> list[tuple[dict[str, Any], dict[str, tuple[int, int]]]]:
        return [read_unit(Path(path)) for path in paths]

    paths = [str(unit_path(out, unit.unit_id)) for unit in units]
    chunks = [paths[i : i + UNITS_A_TASK] for i in range(0, len(paths), UNITS_A_TASK)]
    ahead = max(int(ray.cluster_resources().get("CPU", 1)) * 4, 4)
    waiting: deque[Any] = deque()
    for chunk in chunks:
        waiting.append(read.remote(chunk))
        if len(waiting) >= ahead:
            yield from ray.get(waiting.popleft())
    while waiting:
        yield from ray.get(waiting.popleft())


def _clip_row(part: dict[str, Any], clip: dict[str, Any]) -> dict[str, Any]:
    duration = (clip["end_sample"] - clip["start_sample"]) / part["sample_rate"]
    return {
        **{key: clip[key] for key in ("clip_id", "start_sample", "end_sample", "text", "words", "language", "turn", "cut")},
        **{key: clip[key] for key in ("quality", "transcript")},
        **{key: part[key] for key in ("recording_id", "session", "sample_rate", "speaker", "origin", "licence")},
        "language_probability": part["language_probability"],
        "duration": duration,
        "stages": [1],
        "order": (part["name"], clip["start_sample"]),
    }  # fmt: skip


def write_index(path: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """One Parquet file, written whole and renamed into place."""
    names = schema.names
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows], schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())
