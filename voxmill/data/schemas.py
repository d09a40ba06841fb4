"""The Parquet indexes beside the shards: their columns, and one writer. Shared with readers; free of Ray.

Labels that may be added or change later stand here alone; a tar's `.json` has only what its audio was cut with.
"""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from voxmill.data.shards import write_atomically

_WORD = pa.struct(
    [("word", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("probability", pa.float64())]
)
_QUALITY = pa.struct(
    [
        (name, pa.float64())
        for name in (
            "dnsmos_sig",
            "dnsmos_bak",
            "dnsmos_ovr",
            "dnsmos_p808",
            "snr_db",
            "clipping",
            "bandwidth_hz",
            "loudness_lufs",
            "gain_db",
            "dc_offset",
        )
    ]
)
_TRANSCRIPT = pa.struct(
    [
        ("compression_ratio", pa.float64()),
        ("repeated_ngram", pa.float64()),
        ("characters_per_second", pa.float64()),
        ("text_language", pa.string()),
        ("text_language_probability", pa.float64()),
        ("mean_log_probability", pa.float64()),
        ("no_speech_probability", pa.float64()),
        ("redecoded", pa.bool_()),
        ("aligner", pa.string()),
        ("given_wer", pa.float64()),
    ]
)
CLIP_FIELDS: list[tuple[str, Any]] = [
    ("clip_id", pa.string()),
    ("recording_id", pa.string()),
    ("session", pa.string()),
    ("position", pa.int64()),
    ("start_sample", pa.int64()),
    ("end_sample", pa.int64()),
    ("sample_rate", pa.int64()),
    ("duration", pa.float64()),
    ("text", pa.string()),
    ("words", pa.list_(_WORD)),
    ("language", pa.string()),
    ("language_probability", pa.float64()),
    ("speaker", pa.string()),
    ("turn", pa.int64()),
    ("origin", pa.string()),
    ("cut", pa.string()),
    ("quality", _QUALITY),
    ("transcript", _TRANSCRIPT),
    ("licence", pa.string()),
]
PLACE: list[tuple[str, Any]] = [
    ("shard", pa.string()),
    ("offset", pa.int64()),
    ("size", pa.int64()),
    ("sha256", pa.string()),
]
_PROSODY = pa.struct(
    [
        (name, pa.float64())
        for name in (
            "f0_median_hz",
            "f0_std_semitones",
            "f0_range_semitones",
            "voiced_share",
            "energy_std_db",
            "energy_range_db",
            "rate",
            "articulation_rate",
            "pause_share",
            "longest_pause",
            "hnr_db",
            "spectral_tilt_db",
            "jitter",
            "shimmer",
        )
    ]
    + [("pauses", pa.int64()), ("rate_unit", pa.string())]
)
_CLASS = pa.struct([("label", pa.string()), ("probability", pa.float64()), ("reason", pa.string())])
_FACT = pa.struct(
    [(name, pa.string()) for name in ("attribute", "axis", "word", "unit", "relative_to", "also")]
    + [(name, pa.float64()) for name in ("value", "z", "probability")]
)
_VERDICT_OF_CLAIM = pa.struct(
    [(name, pa.string()) for name in ("attribute", "claimed", "predicted", "verdict")] + [("probability", pa.float64())]
)
_DESCRIPTION = pa.struct(
    [(name, pa.string()) for name in ("axis", "granularity", "language", "text", "generator")]
    + [
        ("facts", pa.list_(pa.struct([("attribute", pa.string()), ("word", pa.string())]))),
        ("verdicts", pa.list_(_VERDICT_OF_CLAIM)),
        ("recall", pa.float64()),
        ("repaired", pa.bool_()),
    ]
)
CONTROL_FIELDS: list[tuple[str, Any]] = [
    ("cluster", pa.string()),
    ("prosody", _PROSODY),
    ("expressiveness", pa.float64()),
    ("expressiveness_percentile", pa.float64()),
    ("gender", _CLASS),
    ("emotion", _CLASS),
    ("age", _CLASS),
    ("facts", pa.list_(_FACT)),
    ("descriptions", pa.list_(_DESCRIPTION)),
    ("references", pa.list_(pa.struct([("clip_id", pa.string()), ("similarity", pa.float64())]))),
    ("no_reference", pa.string()),
    ("parents", pa.list_(pa.string())),
    ("modes", pa.list_(pa.string())),
    ("stages", pa.list_(pa.int64())),
    ("stage_modes", pa.list_(pa.struct([("stage", pa.int64()), ("modes", pa.list_(pa.string()))]))),
]
_VERDICT: list[tuple[str, Any]] = [
    ("stage", pa.string()),
    ("reason", pa.string()),
    ("value", pa.float64()),
    ("threshold", pa.float64()),
]
CLIPS = pa.schema([*CLIP_FIELDS, *CONTROL_FIELDS, *PLACE])
LATENTS = pa.schema([("clip_id", pa.string()), *PLACE, ("num_frames", pa.int64()), ("latent_space", pa.string())])
REJECTED = pa.schema([*CLIPS, *_VERDICT])
RECORDINGS = pa.schema(
    [
        ("recording_id", pa.string()),
        ("path", pa.string()),
        ("session", pa.string()),
        ("state", pa.string()),
        *_VERDICT,
        ("detail", pa.string()),
        ("duration", pa.float64()),
        ("sample_rate", pa.int64()),
        ("channels", pa.int64()),
        ("codec", pa.string()),
        ("num_clips", pa.int64()),
        ("num_kept", pa.int64()),
        ("separated", pa.bool_()),
        ("separation", pa.string()),
        ("licence", pa.string()),
    ]
)


def write_index(path: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """One Parquet file, written whole and renamed into place."""
    names = schema.names
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows], schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())
