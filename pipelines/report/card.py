"""Reads what a run left, and writes the dataset card (README.md with YAML front matter) that goes with the shards."""

from __future__ import annotations

import json
import math
import os
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
AUDIO_ENDINGS = ("flac", "wav", "opus", "ogg", "mp3")
FLOAT_KINDS = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)


@dataclass(frozen=True)
class Outcome:
    """What a run left in its output folder, with structs flattened to dotted column names."""

    out: Path
    clips: pa.Table
    rejected: pa.Table
    recordings: pa.Table
    run: dict[str, Any]


def load_outcome(out: Path) -> Outcome:
    """Reads the three indexes and the run's record; word times are left out, nothing here shows them."""

    def table(name: str) -> pa.Table:
        names = [column for column in pq.read_schema(out / name).names if column != "words"]
        return pq.read_table(out / name, columns=names).flatten()

    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return Outcome(out, table("clips.parquet"), table("rejected.parquet"), table("recordings.parquet"), run)


def floats(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64 with NaN for null; an absent or untyped (all-null) column is all NaN."""
    if name in table.column_names and any(kind(table.schema.field(name).type) for kind in FLOAT_KINDS):
        return np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)
    return np.full(table.num_rows, np.nan)


def strings(table: pa.Table, name: str) -> list[str]:
    """A column as text with '' for null or absent."""
    if name not in table.column_names:
        return [""] * table.num_rows
    return ["" if value is None else str(value) for value in table[name].to_pylist()]


def total(values: np.ndarray) -> float:
    return float(np.nansum(values)) if values.size else 0.0


def median(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def groups(keys: Iterable[Any]) -> dict[Any, np.ndarray]:
    """Row numbers by key, in order of first appearance."""
    found: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)
    return {key: np.asarray(rows) for key, rows in found.items()}


def visible(text: object) -> str:
    """Text whose control and direction characters can be seen, so that a file name cannot disguise itself."""
    shown = []
    for char in str(text):
        if char == "\n":
            shown.append("⏎")
        elif ord(char) < 32:
            shown.append(chr(0x2400 + ord(char)))
        elif unicodedata.category(char) in ("Cc", "Cs") or unicodedata.bidirectional(char) in (
            "RLO",
            "LRO",
            "RLE",
            "LRE",
            "PDF",
            "RLI",
            "LRI",
            "FSI",
            "PDI",
        ):
            shown.append(f"‹U+{ord(char):04X}›")
        else:
            shown.append(char)
    return "".join(shown)


def amount(seconds: float | None) -> str:
    """A length of audio or time in the unit a person would choose."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds >= 360_000:
        return f"{seconds / 3600:,.0f} h"
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    if seconds >= 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds else "0 s"


def number(value: object) -> str:
    """A number with as many digits as it deserves; a dash for what was not measured."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return visible(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    short = f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"
    return short.replace("-", "−")


def percent(part: float, whole: float) -> float:
    return max(0.0, min(100.0, 100.0 * part / whole)) if whole > 0 else 0.0


def languages(outcome: Outcome) -> list[dict[str, Any]]:
    """Kept clips by language, most audio first; also what share of that language's clips survived."""
    clips = outcome.clips
    duration, ovr, snr, sure = (
        floats(clips, name) for name in ("duration", "quality.dnsmos_ovr", "quality.snr_db", "language_probability")
    )
    lost = Counter(strings(outcome.rejected, "language"))
    rows: list[dict[str, Any]] = [
        {
            "language": visible(language or "unknown"),
            "clips": len(at),
            "seconds": total(duration[at]),
            "ovr": number(median(ovr[at])),
            "snr": number(median(snr[at])),
            "probability": number(mean(sure[at])),
            "survived": percent(len(at), len(at) + lost[language]),
        }
        for language, at in groups(strings(clips, "language")).items()
    ]
    most = max((row["seconds"] for row in rows), default=0.0)
    return sorted((row | {"share": percent(row["seconds"], most)} for row in rows), key=lambda row: -row["seconds"])


def cell(value: object) -> str:
    """Text for a Markdown table: shown literally, whatever markup or HTML it holds."""
    text = visible(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text) or " "


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "None.\n"
    lines = [heads, ["---"] * len(heads), *([cell(value) for value in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def leaves(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every single setting of a nested config with its dotted name."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def size_category(clips: int) -> str:
    return next((name for most, name in SIZES if clips < most), "n>10M")


def member_endings(shard: Path) -> list[str]:
    """The endings of a shard's first sample, so that the reading example names members that are really there."""
    endings: list[str] = []
    key = None
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                # WebDataset's rule: the key is everything before the first dot of the base name.
                stem, _, ending = PurePosixPath(member.name).name.partition(".")
                if key is not None and stem != key:
                    break
                key = stem
                endings.append(ending)
    except (OSError, tarfile.TarError):
        return []
    return endings


def reading_example(outcome: Outcome) -> str:
    shards = sorted({PurePosixPath(shard) for shard in strings(outcome.clips, "shard") if shard})
    if not shards:
        return "There are no shards: no clip was kept.\n"
    endings = member_endings(outcome.out / shards[0])
    audio = next((ending for ending in endings if ending in AUDIO_ENDINGS), "flac")
    patterns = sorted({str(shard.parent / "*.tar") for shard in shards})
    imports = ["import glob", "import io"]
    body = [f'    audio, rate = soundfile.read(io.BytesIO(sample["{audio}"]), dtype="float32")']
    if "json" in endings:
        imports.append("import json")
        body += [
            '    label = json.loads(sample["json"])',
            '    print(sample["__key__"], rate, len(audio), label.get("text"))',
        ]
    else:
        body.append('    print(sample["__key__"], rate, len(audio))')
    globs = " + ".join(f"glob.glob({pattern!r})" for pattern in patterns)
    lines = [
        *imports,
        "",
        "import soundfile",
        "import webdataset as wds",
        "",
        f"shards = sorted({globs})",
        "for sample in wds.WebDataset(shards, shardshuffle=False):",
        *body,
    ]
    return (
        "```python\n"
        + "\n".join(lines)
        + "\n```\n\nRun it in this folder. Each clip's labels are also a row of `clips.parquet`.\n"
    )


def front_matter(outcome: Outcome, licences: Sequence[str]) -> str:
    spoken = sorted({language for language in strings(outcome.clips, "language") if language})
    seconds = total(floats(outcome.clips, "duration"))
    known = [licence for licence in licences if licence]
    facts: dict[str, Any] = {
        "pretty_name": "Annotated speech clips",
        "license": known[0].lower() if len(known) == 1 and len(licences) == 1 else "other",
        "language": spoken,
        "task_categories": ["text-to-speech", "automatic-speech-recognition"],
        "tags": ["audio", "speech", "webdataset", "voxmill"],
        "size_categories": [size_category(outcome.clips.num_rows)],
        "hours": round(seconds / 3600, 4),
        "clips": outcome.clips.num_rows,
        "licences": known,
    }
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def write_card(out: Path) -> Path:
    """Writes OUT/README.md and returns its path."""
    outcome = load_outcome(out)
    clips, run = outcome.clips, outcome.run
    duration = floats(clips, "duration")
    by_licence = sorted(groups(strings(clips, "licence")).items(), key=lambda item: -total(duration[item[1]]))
    states, reasons = strings(outcome.recordings, "state"), strings(outcome.recordings, "reason")
    lengths = floats(outcome.recordings, "duration")
    ends = groups(zip(states, reasons, strict=True))
    dropped = Counter(zip(strings(outcome.rejected, "stage"), strings(outcome.rejected, "reason"), strict=True))
    rates = sorted({int(rate) for rate in floats(clips, "sample_rate") if np.isfinite(rate)})
    select = (run.get("config") or {}).get("select") or {}
    parts = [
        "---\n" + front_matter(outcome, [licence for licence, _ in by_licence]) + "---\n",
        "# Annotated speech clips\n",
        f"{amount(total(duration))} of speech in {number(clips.num_rows)} clips, kept from {amount(total(lengths))} in "
        f"{number(len(states))} recordings. Made by voxmill"
        + (f", finished {cell(run['finished'])}" if run.get("finished") else "")
        + (f". Sample rates: {', '.join(f'{rate} Hz' for rate in rates)}" if rates else "")
        + ". `report.html` holds the charts and playable examples.\n",
        "## Languages\n",
        table(
            ["Language", "Clips", "Audio", "Median DNSMOS", "Median SNR (dB)", "Mean certainty"],
            [
                [
                    row["language"],
                    number(row["clips"]),
                    amount(row["seconds"]),
                    row["ovr"],
                    row["snr"],
                    row["probability"],
                ]
                for row in languages(outcome)
            ],
        ),
        "## Licences\n",
        "The licence of each clip is its recording's, in the column `licence`.\n",
        table(
            ["Licence", "Clips", "Hours", "Audio"],
            [
                [
                    licence or "unknown",
                    number(len(rows)),
                    f"{total(duration[rows]) / 3600:.4f}",
                    amount(total(duration[rows])),
                ]
                for licence, rows in by_licence
            ],
        ),
        "## Reading it\n",
        reading_example(outcome),
        "## What was kept\n",
        "How every recording ended:\n",
        table(
            ["State", "Reason", "Recordings", "Audio"],
            [
                [state, reason, number(len(rows)), amount(total(lengths[rows]))]
                for (state, reason), rows in sorted(
                    ends.items(), key=lambda item: (item[0][0] != "kept", -len(item[1]))
                )
            ],
        ),
        "Why clips were dropped (each one is a row of `rejected.parquet`):\n",
        table(
            ["Stage", "Reason", "Clips"],
            [[stage, reason, number(count)] for (stage, reason), count in dropped.most_common()],
        ),
        "## Thresholds\n",
        table(["Setting", "Value"], [[name, number(value)] for name, value in leaves(select) if name]),
        "## Models\n",
        "Labels were made by these models; their errors are in the labels.\n",
        table(
            ["Stage", "Model", "Source", "Licence", "SHA-256"],
            [
                [model.get(key) or "" for key in ("stage", "name", "source", "licence", "sha256")]
                for model in run.get("models") or []
            ],
        ),
    ]
    target = out / "README.md"
    partial = target.with_suffix(".md.partial")
    partial.write_bytes("\n".join(parts).encode("utf-8", "backslashreplace"))
    os.replace(partial, target)
    return target
