"""Reads what a run left, and writes the dataset card (README.md with YAML front matter) that goes with the shards."""

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipelines.report.bucket_summary import BucketSummary
from pipelines.report.formatting import amount, number, visible
from pipelines.report.run_record import Run
from pipelines.report.tables import Outcome, languages, leaves, load_outcome
from voxmill.core.files import write_atomically
from voxmill.data.records import KEPT_STATES

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
AUDIO_ENDINGS = ("flac", "wav", "opus", "ogg", "mp3")


def cell(value: object) -> str:
    """Text for a Markdown table: shown literally, whatever markup or HTML it holds."""
    text = visible(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text) or " "


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "None.\n"
    lines = [heads, ["---"] * len(heads), *([cell(value) for value in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def size_category(clips: int) -> str:
    return next((name for most, name in SIZES if clips < most), "n>10M")


def member_endings(shard: Path) -> list[str]:
    """The endings of a shard's first sample, so that the reading example names members that are really there."""
    endings: list[str] = []
    key = None
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file) as tar:
            for member in tar:
                # WebDataset's rule: the key is everything before the first dot of the base name.
                stem, _, ending = PurePosixPath(member.name).name.partition(".")
                if key is not None and stem != key:
                    break
                key = stem
                endings.append(ending)
    except (FileNotFoundError, tarfile.TarError):
        return []
    return endings


def reading_example(outcome: Outcome) -> str:
    shard = outcome.summary.shard
    if not shard:
        return "There are no shards: no clip was kept.\n"
    endings = member_endings(outcome.out / shard)
    audio = next((ending for ending in endings if ending in AUDIO_ENDINGS), "flac")
    # Shards lie in one folder, or in one a bucket.
    pattern = str(PurePosixPath(*PurePosixPath(shard).parts[:1], "**", "*.tar"))
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
    lines = [
        *imports,
        "",
        "import soundfile",
        "import webdataset as wds",
        "",
        f"shards = sorted(glob.glob({pattern!r}, recursive=True))",
        "for sample in wds.WebDataset(shards, shardshuffle=False):",
        *body,
    ]
    return (
        "```python\n"
        + "\n".join(lines)
        + "\n```\n\nRun it in this folder. Each clip's labels are also a row of `clips.parquet`.\n"
    )


def front_matter(outcome: Outcome, licences: Sequence[str]) -> str:
    summary = outcome.summary
    spoken = [row.language for row in summary.languages if row.kept.count and row.language]
    known = [licence for licence in licences if licence]
    facts: dict[str, Any] = {
        "pretty_name": "Annotated speech clips",
        "license": known[0].lower() if len(known) == 1 and len(licences) == 1 else "other",
        "language": spoken,
        "task_categories": ["text-to-speech", "automatic-speech-recognition"],
        "tags": ["audio", "speech", "webdataset", "voxmill"],
        "size_categories": [size_category(summary.kept.count)],
        "hours": round(summary.kept.seconds / 3600, 4),
        "clips": summary.kept.count,
        "licences": known,
    }
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def _trust(run: Run) -> str:
    """What predicted the word error rates that clips were selected by."""
    figures = run.get("trust")
    if figures is None:
        return ""
    name = cell(figures["recogniser"])
    if figures["fit"] is None:
        return f"Nothing predicts the word error rates of {name}; thresholds on single measures were applied.\n"
    return (
        f"`predicted_wer` is of a fit for {name} ({cell(figures['date'])}, {figures['fitted_clips']:,} clips of "
        f"{cell(figures['recordings'])}); `report.html` shows how true it was on others.\n"
    )


def write_card(out: Path, summary: BucketSummary | None = None) -> Path:
    """Writes OUT/README.md and returns its path.

    Args:
        summary: of all buckets; made from the indexes where it is not given.

    Raises:
        UserError: an index is not there or cannot be read, or `run.json` is of an older voxmill.
    """
    outcome = load_outcome(out, summary)
    run, summary = outcome.run, outcome.summary
    by_licence = sorted(summary.licences, key=lambda row: -row.clips.microseconds)
    uncounted = summary.kept.count - sum(row.clips.count for row in by_licence)
    ends = sorted(summary.ends, key=lambda row: (row.state not in KEPT_STATES, -row.recordings.count))
    dropped = sorted(summary.dropped, key=lambda row: -row.clips.count)
    select = (run.get("config") or {}).get("select") or {}
    parts = [
        "---\n" + front_matter(outcome, [row.name for row in by_licence]) + "---\n",
        "# Annotated speech clips\n",
        f"{amount(summary.kept.seconds)} of speech in {number(summary.kept.count)} clips, kept from "
        f"{amount(summary.recordings.seconds)} in {number(summary.recordings.count)} recordings. Made by voxmill"
        + (f", finished {cell(run['finished'])}" if run.get("finished") else "")
        + (
            f". Sample rates: {', '.join(f'{rate} Hz' for rate in summary.sample_rates)}"
            if summary.sample_rates
            else ""
        )
        + ". `report.html` holds the charts and playable examples.\n",
        "## Languages\n",
        table(
            ["Language", "Clips", "Audio", "Median DNSMOS", "Median SNR (dB)", "Mean certainty"],
            [
                [row.language, number(row.clips), amount(row.seconds), row.ovr, row.snr, row.probability]
                for row in languages(outcome)
            ],
        ),
        "## Licences\n",
        "The licence of each clip is its recording's, in the column `licence`.\n",
        table(
            ["Licence", "Clips", "Hours", "Audio"],
            [
                [
                    row.name or "unknown",
                    number(row.clips.count),
                    f"{row.clips.seconds / 3600:.4f}",
                    amount(row.clips.seconds),
                ]
                for row in by_licence
            ],
        ),
        *([f"{number(uncounted)} clips have other licences.\n"] if uncounted else []),
        "## Reading it\n",
        reading_example(outcome),
        "## What was kept\n",
        "How every recording ended:\n",
        table(
            ["State", "Reason", "Recordings", "Audio"],
            [[row.state, row.reason, number(row.recordings.count), amount(row.recordings.seconds)] for row in ends],
        ),
        "Why clips were dropped (each one is a row of `rejected.parquet`):\n",
        table(
            ["Stage", "Reason", "Clips"],
            [[row.stage, row.reason, number(row.clips.count)] for row in dropped],
        ),
        "## Thresholds\n",
        _trust(run),
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
    write_atomically(target, "\n".join(parts).encode("utf-8", "backslashreplace"))
    return target
