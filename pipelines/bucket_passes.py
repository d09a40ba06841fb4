"""The passes of `finish` over the buckets of an OUT, a Ray task a bucket where there are several.

What a bucket was made from is kept beside its results (`work/corpus`), so that a bucket that nothing has changed for is
not made again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np

from annotation.corpus.expressiveness import SCORE_CELLS
from annotation.corpus.grid_counts import GridCounts, cell_of
from pipelines.config import AnnotateConfig
from pipelines.corpus.bucket import BucketInputs, finish_bucket
from pipelines.corpus.corrections.csv_file import Corrections
from pipelines.corpus.describe import DescriptionJob
from pipelines.corpus.duplicates import find_repeated, read_repeated
from pipelines.corpus.figures import BucketFigures
from pipelines.corpus.labels import Cutoff
from pipelines.corpus.measures import SpeakerSums, corpus_path, corrected_clips, measure_bucket, read_measures
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
from pipelines.corpus.speakers import decide_speakers, read_traits
from pipelines.report.bucket_summary import BucketSummary
from pipelines.report.table_summary import summarize
from pipelines.units.plan_files import planned_buckets, recordings_path, stored_buckets
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint, sha256_bytes
from voxmill.core.local_ray import cluster_cpus
from voxmill.core.local_ray.tasks import map_in_order, map_tasks
from voxmill.data.layout import INDEXES, part_path
from voxmill.data.records import ClipId, from_json_text, to_json_text
from voxmill.data.schemas import parquet_metadata
from voxmill.data.snapshot import ANNOTATED, BucketFiles, read_snapshot

FORMAT = 7
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


class BucketPasses:
    """The passes over the planned buckets of one OUT, in the order of the methods.

    `usage`: what asking for descriptions took; None where nobody was asked.
    """

    def __init__(self, out: Path, config: AnnotateConfig):
        self.out, self.config = out, config
        self.planned, self.buckets = planned_buckets(out), stored_buckets(out)
        self.before = read_snapshot(out)
        self.usage: Mapping[str, float] | None = None

    def measure(self) -> int:
        """Who speaks in every bucket, and the measures of its clips; returns their number, kept or not."""
        out, config = self.out, self.config
        return sum(map_in_order(lambda bucket: measure_bucket(out, bucket, config), self.planned, memory=MEMORY))

    def corrected(self, corrections: Corrections) -> set[ClipId]:
        """Which of the corrected clips there are: no more names than the corrections have."""
        out = self.out
        if not corrections:
            return set()

        def found(buckets: Sequence[int]) -> set[ClipId]:
            return set().union(*(corrected_clips(out, bucket, corrections) for bucket in buckets))

        return set().union(*map_in_order(found, _chunks(self.planned)))

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

    def speakers(self, clips: int) -> tuple[str, ...]:
        """Decides, of so many clips, what is lasting in their speakers; returns the parts of the table, below OUT."""
        before = () if self.before is None else self.before.speakers
        return decide_speakers(self.out, self.planned, clips, self.config, before)

    def repeated(self, clips: int) -> int:
        """Finds, of so many, the clips that another bucket has too; returns the number of files that name them."""
        return find_repeated(self.out, self.planned, clips)

    def cutoff(self, norms: CorpusNorms, parts: int) -> Cutoff | None:
        """The last clip that `top_share` describes of the kept and scored ones, the best first.

        Args:
            parts: as `repeated` returned it.
        """
        out, config, share = self.out, self.config, self.config.corpus_labels.expressiveness.top_share
        if share is None or config.corpus_labels.screen() != "expressive":
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
        self, norms: CorpusNorms, norms_name: str, parts: int, cutoff: Cutoff | None, speakers: Sequence[str] = ()
    ) -> Iterator[BucketState]:
        """The state of every bucket, in order; those that nothing has changed for as they were.

        Args:
            parts, speakers: as `repeated` and `speakers` returned them.
        """
        out, config, buckets = self.out, self.config, self.buckets
        before = {} if self.before is None else {row.bucket: row for row in self.before.files}
        items = ((bucket, before.get(bucket)) for bucket in self.planned)

        def finish_one(item: tuple[int, BucketFiles | None], job: DescriptionJob | None = None) -> BucketState:
            bucket, files = item
            repeated = tuple(read_repeated(out, bucket, parts))
            traits = read_traits(out, bucket, len(speakers))
            inputs = BucketInputs(
                bucket=bucket, buckets=buckets, norms=norms, cutoff=cutoff, repeated=repeated, traits=traits
            )
            job = DescriptionJob(out, config, workers=1) if job is None else job
            return _finish_one(out, config, norms_name, inputs, files, job)

        # Whoever asks a server does so from here: its limits and its budget are counted once.
        if config.corpus_labels.descriptions.writer in ("endpoint", "processor") or len(self.planned) == 1:
            job = DescriptionJob(out, config, config.run.workers or cluster_cpus())
            for item in items:
                yield finish_one(item, job)
            self.usage = job.usage
        else:
            for _, state in map_tasks(finish_one, items, ordered=True, memory=MEMORY):
                yield state

    def remove_parts_of_no_bucket(self) -> None:
        """Parts of buckets that have no input any more."""
        planned = set(self.planned)
        for row in () if self.before is None else self.before.files:
            if row.bucket not in planned and self.buckets > 1:
                for index in INDEXES[:3]:
                    part_path(self.out, index, row.bucket, self.buckets).unlink(missing_ok=True)


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
            [to_json_text(traits) for traits in inputs.traits.values()],
            *([] if config.write.shard_by is None else [config.write.shard_by]),
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


def _counted(scores: Iterable[np.ndarray]) -> GridCounts:
    return GridCounts.of(np.concatenate([np.zeros(0), *scores]), SCORE_CELLS)


def _chunks(buckets: Sequence[int]) -> list[Sequence[int]]:
    """The buckets of each task, of two at least: this process reads the table of a bucket only where there is one."""
    size = max(min(BUCKETS_A_TASK, -(-len(buckets) // 2)), 1)
    return [buckets[i : i + size] for i in range(0, len(buckets), size)]
