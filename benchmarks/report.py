"""Report and card of a finished dataset of many buckets: time and memory of the driver, by the number of clips.

    python benchmarks/report.py [--clips 10000 100000 1000000] [--bucket 8000] [--folder build/report]

Indexes are made of one bucket's part whose clips have drawn measures, texts and descriptions, and links to it. Every
size runs in a process of its own, so its peak is its own. Audio of the examples is not there; the pages are written
whole.

The last line is one JSON object: CPU seconds and peak memory by clips, and bytes of one bucket's summary.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from pipelines.report.card import write_card  # noqa: E402
from pipelines.report.html import write_report  # noqa: E402
from pipelines.report.table_summary import summarize  # noqa: E402
from pipelines.report.tables import summarize_dataset  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.data.layout import index_parts, part_path, read_part  # noqa: E402
from voxmill.data.records import to_json_text  # noqa: E402
from voxmill.data.schemas import CLIPS, RECORDINGS, REJECTED, write_index  # noqa: E402
from voxmill.data.snapshot import ANNOTATED  # noqa: E402

LANGUAGES = ("en", "en", "en", "de", "fr", "zh")
REASONS = (("quality", "low_dnsmos_ovr", 2.5), ("quality", "low_snr_db", 15.0), ("transcription", "looping", 2.4))


def make(folder: Path, clips: int, per_bucket: int) -> None:
    """A folder of parts of so many clips, at least one bucket."""
    buckets = max(clips // per_bucket, 1)
    rng = np.random.default_rng(0)
    made = [_clip(number, rng) for number in range(min(clips, per_bucket))]
    dropped = [_clip(len(made) + number, rng) | _ending(number, rng) for number in range(len(made) // 5)]
    inputs: list[dict[str, object]] = [
        {
            "recording_id": f"r{i}",
            "path": f"in/{i}.flac",
            "state": "rejected" if i % 9 == 0 else "kept",
            "duration": 600.0,
        }
        for i in range(max(len(made) // 80, 1))
    ]
    tables: tuple[list[dict[str, object]], ...] = (made, dropped, inputs)
    for index, schema, rows in zip(ANNOTATED, (CLIPS, REJECTED, RECORDINGS), tables, strict=True):
        first = folder / "made" / index
        write_index(first, schema, rows)
        (folder / index).mkdir()
        for bucket in range(buckets):
            os.link(first, part_path(folder, index, bucket, max(buckets, 2)))
    (folder / "run.json").write_text("{}", encoding="utf-8")


def _clip(number: int, rng: np.random.Generator) -> dict[str, object]:
    text = {"axis": "design", "granularity": "phrase", "language": "en", "text": "a low voice", "generator": "template"}
    return {
        "clip_id": f"{number:032x}",
        "recording_id": f"r{number // 80}",
        "session": f"s{number // 80}",
        "sample_rate": 48_000,
        "duration": float(rng.gamma(3.0, 2.3)),
        "text": "a sentence of about as many words as a clip of seven seconds has, more or less " * 2,
        "language": LANGUAGES[number % len(LANGUAGES)],
        "language_probability": float(rng.uniform(0.8, 1)),
        "speaker": f"speaker {number // 160}",
        "origin": "separated" if number % 7 == 0 else "native",
        "quality": {
            "dnsmos_ovr": float(rng.normal(3.2, 0.3)),
            "snr_db": float(rng.normal(35, 9)),
            "bandwidth_hz": float(rng.choice([8_000, 12_000, 20_000])),
        },
        "transcript": {"characters_per_second": float(rng.normal(14, 2))},
        "expressiveness": float(rng.normal()),
        "gender": {"label": "female" if number % 2 else "male", "probability": 0.9, "reason": None},
        "descriptions": [text] * 3,
        "shard": "shards/none.tar",
        "offset": number,
        "size": 1,
    }


def _ending(number: int, rng: np.random.Generator) -> dict[str, object]:
    stage, reason, threshold = REASONS[number % len(REASONS)]
    return {"stage": stage, "reason": reason, "threshold": threshold, "value": threshold * float(rng.uniform(0.3, 1))}


def measure(folder: Path) -> dict[str, float]:
    """CPU seconds, peak memory in MB and clips of both pages, made from the indexes."""
    began = time.process_time()
    summary = summarize_dataset(folder)
    summed = time.process_time()
    write_card(folder, summary)
    write_report(folder, summary)
    return {
        "clips": summary.kept.count,
        "summary_seconds": round(summed - began, 2),
        "pages_seconds": round(time.process_time() - summed, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


@command("report.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--bucket", type=int, default=8_000, help="clips a bucket")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "report")
    parser.add_argument("--measure", action="store_true", help="one folder that is there, in this process")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.folder)))
        return
    rows, summary_bytes = [], 0
    for clips in options.clips:
        folder = options.folder / str(clips)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder, clips, options.bucket)
        parts = [read_part(index_parts(folder / index)[0]) for index in ANNOTATED]
        summary_bytes = len(to_json_text(summarize(*parts, buckets=1_000)))
        child = [sys.executable, __file__, "--measure", "--folder", str(folder)]
        done = subprocess.run(child, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        shutil.rmtree(folder)
    headings = ["clips", "summary, CPU s", "pages, CPU s", "peak, MB"]
    cells = [[f"{row['clips']:,}", *(f"{row[key]:g}" for key in list(row)[1:])] for row in rows]
    Console().print(table("Report and card", headings, cells))
    print(json.dumps({"sizes": rows, "bucket_summary_bytes": summary_bytes}))


if __name__ == "__main__":
    sys.exit(main())
