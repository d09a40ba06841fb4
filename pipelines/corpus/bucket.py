"""Pass 2 over a bucket: its candidates become its shards and its parts of the indexes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from annotation.corpus.speaker_traits import SpeakerTraits
from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip, index_row, rejected_row
from pipelines.corpus.collect import CollectedClips, collect, number
from pipelines.corpus.describe import DescriptionJob, count_verdicts
from pipelines.corpus.figures import MAX_OTHERS, BucketFigures
from pipelines.corpus.labels import (
    Cutoff,
    add_eligibility,
    add_facts,
    add_references,
    add_scores,
    count_given,
    errors_of,
    not_described,
)
from pipelines.corpus.measures import in_order, read_measures
from pipelines.corpus.norms import CorpusNorms, scores_of
from pipelines.corpus.recordings import finished_recordings
from pipelines.corpus.write_shards import (
    forget_members,
    group_clips,
    member_of,
    read_earlier,
    remember_members,
    shard_folder,
    write_shards,
)
from pipelines.units.plan_files import read_recordings, read_units
from voxmill.core.files import write_atomically
from voxmill.data.layout import part_path
from voxmill.data.records import Clip, ClipId, Ending, Recording, RejectedClip, StageName
from voxmill.data.schemas import parquet_bytes, to_table
from voxmill.data.snapshot import BucketFiles, PartFile, ShardFile


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketInputs:
    """What a bucket's pass is given beside its files.

    repeated: its clips that another bucket has under an earlier name. cutoff: with `top_share`, the last clip that is
    described. shards: of the state before. traits: what is decided of its speakers, by name and whether a person gives
    it.
    """

    bucket: int
    buckets: int
    norms: CorpusNorms
    repeated: tuple[ClipId, ...] = ()
    cutoff: Cutoff | None = None
    shards: tuple[ShardFile, ...] = ()
    traits: Mapping[tuple[str, bool], SpeakerTraits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BucketOutputs:
    """What a bucket consists of now, its figures, and its tables."""

    files: BucketFiles
    figures: BucketFigures
    clips: pa.Table
    rejected: pa.Table
    recordings: pa.Table


def finish_bucket(out: Path, config: AnnotateConfig, inputs: BucketInputs, job: DescriptionJob) -> BucketOutputs:
    """Selects, labels, describes and packs the clips of one bucket, and writes its parts of the indexes.

    Raises:
        JobError: a unit's file is damaged, or an endpoint of descriptions is down.
    """
    bucket, buckets = inputs.bucket, inputs.buckets
    units = read_units(out, bucket, config.label)
    collected = collect(units, out, config)
    _label(out, collected, config, inputs)
    labels = config.corpus_labels.labels
    earlier = read_earlier(out, bucket, buckets, inputs.shards)
    shard_by = config.write.shard_by
    members = [member_of(clip, shard_by) for clip in collected.kept]
    groups = group_clips(collected.kept, earlier, config.write.shard_megabytes * 1e6, shard_by)
    references = None
    if "references" in labels:
        references = add_references([group.clips for group in groups], config.corpus_labels)
    job.counts.clear()
    job.dropped.clear()
    reasons = [not_described(clip, config.corpus_labels, inputs.cutoff) for clip in collected.kept]
    job.describe(collected.kept, bucket, reasons)
    eligible = add_eligibility(collected.kept, config.corpus_labels)
    shards = write_shards(groups, out, shard_folder(bucket, buckets), earlier)
    planned = read_recordings(out, bucket)
    tables = (
        to_table([index_row(clip) for clip in collected.kept], Clip),
        to_table([rejected_row(clip) for clip in collected.rejected], RejectedClip),
        to_table(finished_recordings(planned, collected), Recording),
    )
    if members != list(earlier.members.values()):
        forget_members(out, bucket)
    parts = [
        _write_part(part_path(out, index, bucket, buckets), table)
        for index, table in zip(("clips.parquet", "rejected.parquet", "recordings.parquet"), tables, strict=True)
    ]
    if members != list(earlier.members.values()):
        remember_members(out, bucket, members)
    files = BucketFiles(bucket=bucket, clips=parts[0], rejected=parts[1], recordings=parts[2], shards=tuple(shards))
    separations = [
        (window.separation, window.window.seconds)
        for windows in collected.windows.values()
        for window in windows
        if window.separation is not None
    ]
    others = [row.path for row in planned if row.state == "other"]
    figures = BucketFigures(
        units=len(units),
        others=len(others),
        other_names=tuple(others[:MAX_OTHERS]),
        errors=errors_of(collected.kept + collected.rejected),
        with_reference=0 if references is None else references["with_reference"],
        across_languages=0 if references is None else references["across_languages"],
        reasons={} if references is None else references["reasons"],
        rule_violations=0 if references is None else references["rule_violations"],
        described=dict(job.counts),
        dropped=dict(job.dropped),
        verdicts=count_verdicts(collected.kept),
        modes=eligible["modes"],
        stages=eligible["stages"],
        why_not={
            f"{stage}/{reason}": count
            for stage, counts in eligible["why_not"].items()
            for reason, count in counts.items()
        },
        costs=collected.costs,
        windows=len(separations),
        separated=sum(separation.used for separation, _ in separations),
        asked_seconds=sum(separation.wanted_seconds(seconds) for separation, seconds in separations),
        spared_seconds=sum(seconds - separation.wanted_seconds(seconds) for separation, seconds in separations),
        transcribed=len(collected.kept) + len(collected.rejected),
        decoded_twice=_decoded_twice(collected.kept + collected.rejected),
        given=count_given(collected.kept + collected.rejected),
        corrected=collected.corrected,
    )
    return BucketOutputs(files, figures, *tables)


def _decoded_twice(clips: Iterable[CorpusClip]) -> dict[str, int]:
    """Clips that were decoded a second time, by why."""
    why = (clip.candidate.transcript.redecoded_for for clip in clips if clip.candidate.transcript is not None)
    return dict(Counter(reason for reason in why if reason))


def _label(out: Path, collected: CollectedClips, config: AnnotateConfig, inputs: BucketInputs) -> None:
    """Speakers, scores and facts of all candidates; then drops what other buckets have."""
    measures = read_measures(out, inputs.bucket)
    clips = in_order(collected)
    names = measures.table.select(["speaker", "cluster"]).to_pydict()
    for clip, speaker, cluster in zip(clips, names["speaker"], names["cluster"], strict=True):
        clip.speaker, clip.cluster = speaker, cluster
        clip.traits = inputs.traits.get((speaker or "", speaker != cluster))
    if "expressiveness" in config.corpus_labels.labels:
        add_scores(clips, scores_of(measures, inputs.norms, config), inputs.norms)
    add_facts(clips, inputs.norms, config)
    _drop_repeated(collected, set(inputs.repeated))
    number(collected)


def _drop_repeated(collected: CollectedClips, repeated: set[ClipId]) -> None:
    kept: list[CorpusClip] = []
    for clip in collected.kept:
        if clip.clip_id in repeated:
            collected.reject(clip, Ending(stage=StageName.SELECTION, reason="duplicate_clip"))
        else:
            kept.append(clip)
    collected.kept = kept


def _write_part(path: Path, table: pa.Table) -> PartFile:
    """Writes a part of an index where its content changes."""
    content = parquet_bytes(table)
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
    return PartFile.of(content, table.num_rows)
