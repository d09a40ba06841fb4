"""What is decided of every speaker over its clips in all buckets, kept as a table of the dataset.

Buckets are tallied in groups, each into one file of a row group a part; a part has its share of all speakers, by the
hash of their names. The task of a part adds up the tallies, decides, and writes two files: its part of the dataset's
table, under a name of its content in OUT/norms, and below OUT/work the same by bucket, of which each bucket reads its
own rows. A named speaker keeps what an earlier run has decided (`corpus_labels.norms: keep`), so that one more
recording changes no other clip's facts; a cluster is of one session and is decided again with it.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.corpus.speaker_traits import (
    LASTING,
    SpeakerTally,
    SpeakerTraits,
    Votes,
    count_measures,
    decide_traits,
)
from pipelines.config import AnnotateConfig
from pipelines.corpus.duplicates import num_parts, read_bucket_rows, write_bucket_rows
from pipelines.corpus.measures import corpus_path
from pipelines.corpus.norms import made_with
from voxmill.core.files import remove_files, write_atomically
from voxmill.core.hashing import fingerprint, sha256_bytes, short_hash
from voxmill.core.local_ray.tasks import map_tasks
from voxmill.data.records import from_json_text, to_json_text
from voxmill.data.schemas import from_table, parquet_bytes, parquet_metadata, read_parquet, to_table

FORMAT = 1
BUCKETS_A_FILE = 64
"""Whose speakers are tallied by one task."""
MEMORY = 1 << 30
"""Bytes that a task may take."""
_MADE_WITH = "made_with"
_TALLIES = pa.schema(
    {"bucket": pa.int64(), "speaker": pa.string(), "named": pa.bool_(), "tally": pa.string()}  # as JSON
)

Result = TypeVar("Result")


def tally_bucket(out: Path, bucket: int) -> dict[tuple[str, bool], SpeakerTally]:
    """The tally of every speaker of a bucket, by name and whether a person gives it."""
    table = read_parquet(corpus_path(out, bucket, "parquet"), ("speaker", "cluster", "votes", *LASTING))
    tallies: dict[tuple[str, bool], SpeakerTally] = {}
    for row in table.to_pylist():
        if row["speaker"]:
            key = row["speaker"], row["speaker"] != row["cluster"]
            votes = {vote["source"]: Votes.of(vote["female"]) for vote in row["votes"]}
            measures = count_measures({name: row[name] for name in LASTING})
            one = SpeakerTally(clips=1, gender=votes, measures=measures)
            tallies[key] = tallies[key] + one if key in tallies else one
    return tallies


def decide_speakers(
    out: Path, buckets: Sequence[int], clips: int, config: AnnotateConfig, before: Sequence[str]
) -> tuple[str, ...]:
    """Decides the traits of all speakers; returns the names of the parts of their table, below OUT.

    Args:
        clips: of all buckets, about.
        before: the parts of the table that the dataset has.
    """
    parts = max(num_parts(clips, len(buckets)), 1)
    size = max(min(BUCKETS_A_FILE, -(-len(buckets) // 2)), 1)
    groups = [buckets[i : i + size] for i in range(0, len(buckets), size)]
    alone = len(buckets) == 1
    _run(lambda i: write_tallies(out, groups[i], i, parts), range(len(groups)), alone)
    names = _run(lambda part: decide_part(out, part, parts, len(groups), config, before), range(parts), alone)
    remove_files(out, [_tallies_path(out, i).relative_to(out).as_posix() for i in range(len(groups))])
    return tuple(names)


def write_tallies(out: Path, buckets: Sequence[int], number: int, parts: int) -> None:
    """Writes the tallies of some buckets as one file of a row group a part."""
    rows: list[list[tuple[int, str, bool, str]]] = [[] for _ in range(parts)]
    for bucket in buckets:
        for (speaker, named), tally in sorted(tally_bucket(out, bucket).items()):
            rows[_part_of(speaker, parts)].append((bucket, speaker, named, to_json_text(tally)))
    content = io.BytesIO()
    with pq.ParquetWriter(content, _TALLIES, compression="zstd") as writer:
        for part in rows:
            columns = list(zip(*part, strict=True)) or [()] * len(_TALLIES)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, _TALLIES.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=_TALLIES), row_group_size=max(len(part), 1))
    write_atomically(_tallies_path(out, number), content.getvalue())


def decide_part(out: Path, part: int, parts: int, files: int, config: AnnotateConfig, before: Sequence[str]) -> str:
    """Decides the speakers of one part of `parts`; returns the name of their table, below OUT."""
    tallies: dict[tuple[str, bool], SpeakerTally] = {}
    buckets_of: dict[tuple[str, bool], list[int]] = {}
    for number in range(files):
        with _tallies_path(out, number).open("rb") as file:
            for row in pq.ParquetFile(file).read_row_group(part).to_pylist():
                key = row["speaker"], row["named"]
                one = from_json_text(SpeakerTally, row["tally"])
                tallies[key] = tallies[key] + one if key in tallies else one
                buckets_of.setdefault(key, []).append(row["bucket"])
    rule, made = config.corpus_labels.traits, _made_with(config)
    kept = _kept(out, part, parts, before, made) if config.corpus_labels.norms == "keep" else {}
    traits = {
        (speaker, named): kept[speaker] if named and speaker in kept else decide_traits(speaker, named, tally, rule)
        for (speaker, named), tally in sorted(tallies.items())
    }
    table = to_table(list(traits.values()), SpeakerTraits)
    content = parquet_bytes(table.replace_schema_metadata({_MADE_WITH: made}))
    name = f"norms/speakers-{sha256_bytes(content)[:12]}.parquet"
    if not (out / name).exists():
        write_atomically(out / name, content)
    rows = sorted((bucket, number) for number, key in enumerate(traits) for bucket in buckets_of[key])
    by_bucket = table.take(pa.array([number for _, number in rows], pa.int64()))
    whose = pa.array([bucket for bucket, _ in rows], pa.int64())
    write_bucket_rows(_traits_path(out, part), by_bucket.add_column(0, "bucket", whose))
    return name


def read_traits(out: Path, bucket: int, parts: int) -> dict[tuple[str, bool], SpeakerTraits]:
    """What is decided of the speakers of a bucket, by name and whether a person gives it."""
    traits: list[SpeakerTraits] = []
    for part in range(parts):
        for table in read_bucket_rows(_traits_path(out, part), bucket):
            traits += from_table(SpeakerTraits, table.drop_columns(["bucket"]))
    return {(one.speaker, one.named): one for one in sorted(traits, key=lambda one: (one.speaker, one.named))}


def _kept(out: Path, part: int, parts: int, before: Sequence[str], made: str) -> dict[str, SpeakerTraits]:
    """Named speakers of a part that an earlier run has decided by the same settings."""
    names = [before[part]] if len(before) == parts else before
    tables = [out / name for name in names if (out / name).exists()]
    return {
        traits.speaker: traits
        for path in tables
        if parquet_metadata(path).get(_MADE_WITH) == made
        for traits in from_table(SpeakerTraits, read_parquet(path))
        if traits.named and _part_of(traits.speaker, parts) == part
    }


def _made_with(config: AnnotateConfig) -> str:
    """Fingerprint of the settings that traits depend on."""
    return fingerprint([FORMAT, made_with(config), config.corpus_labels.traits.model_dump(mode="json")])


def _part_of(speaker: str, parts: int) -> int:
    return short_hash(speaker, 8) % parts


def _tallies_path(out: Path, number: int) -> Path:
    return out / "work" / "corpus" / f"tallies-{number:04d}.parquet"


def _traits_path(out: Path, part: int) -> Path:
    return out / "work" / "corpus" / f"traits-{part:04d}.parquet"


def _run(fn: Callable[[int], Result], items: Sequence[int], alone: bool) -> list[Result]:
    """Results in order: by Ray tasks, or in this process for a dataset of one bucket."""
    if alone:
        return [fn(item) for item in items]
    return [result for _, result in map_tasks(fn, items, ordered=True, memory=MEMORY)]
