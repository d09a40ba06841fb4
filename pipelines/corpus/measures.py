"""Pass 1 over a bucket: who speaks in it, and the measures that norms and scores are made of, as one table.

`work/corpus/<bucket>.parquet` has a row a candidate clip, kept or not, in order of session and time; it is made again
where the units of the bucket or the settings that it depends on have changed.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotation.corpus.expressiveness import MEASURES, as_columns
from annotation.corpus.speaker_clusters import (
    ClusterConfig,
    cluster_means,
    count_voices,
    largest_share_count,
    name_speakers,
)
from annotation.corpus.speaker_traits import LASTING
from annotation.descriptions.facts import VoiceSums, sum_voices
from annotation.voice.given_labels import given_classes
from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.collect import CollectedClips, collect
from pipelines.corpus.corrections.csv_file import Corrections, in_force
from pipelines.corpus.trust import fit_key
from pipelines.units.label_store import LabelStore
from pipelines.units.plan_files import GivenRecording, read_given, read_units
from voxmill.core.hashing import fingerprint, short_hash
from voxmill.data.layout import bucket_name
from voxmill.data.records import ClipId, Prosody, from_json_text, to_json_text
from voxmill.data.schemas import parquet_metadata, parquet_rows, read_parquet, to_table, write_parquet

FORMAT = 9
MAX_VOICES = 1000
"""Clusters of which the mean voice is kept, half a kB each, to count voices across sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenderVote:
    """What one classifier gives a female voice, 0..1."""

    source: str
    female: float


class ClusterVoice(NamedTuple):
    """A cluster of a session: the hash of its name and its clips' mean unit vector, base64 of float16 [D]."""

    hash: int
    vector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerSums:
    """Clusters of voices of some buckets, and over the `known` clips that the manifest names a speaker of, how many are
    of their cluster's most frequent speaker, and how many in their speaker's most frequent cluster.

    sample: the `MAX_VOICES` clusters of the least hashes.
    """

    clusters: int = 0
    without_voice: int = 0
    known: int = 0
    in_cluster: int = 0
    in_speaker: int = 0
    sample: tuple[ClusterVoice, ...] = ()

    def voices(self, rule: ClusterConfig) -> int:
        """Voices in the sample, across sessions."""
        vectors = [np.frombuffer(base64.b64decode(voice.vector), dtype="<f2") for voice in self.sample]
        return count_voices(np.stack(vectors).astype(np.float64), rule) if vectors else 0

    def __add__(self, other: "SpeakerSums") -> "SpeakerSums":
        return SpeakerSums(
            clusters=self.clusters + other.clusters,
            without_voice=self.without_voice + other.without_voice,
            known=self.known + other.known,
            in_cluster=self.in_cluster + other.in_cluster,
            in_speaker=self.in_speaker + other.in_speaker,
            sample=_sample(self.sample + other.sample),
        )


def _sample(voices: Iterable[ClusterVoice]) -> tuple[ClusterVoice, ...]:
    return tuple(sorted(voices)[:MAX_VOICES])


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredClip:
    """A row of the table; the measures have columns of their own.

    hash: of `clip_id`. kept: by thresholds, and within its bucket. votes: of all classifiers of gender that answered,
    sure or not.
    """

    clip_id: ClipId
    hash: int
    name: str
    start_sample: int
    kept: bool
    speaker: str | None
    cluster: str | None
    language: str
    votes: tuple[GenderVote, ...]


@dataclass(frozen=True, slots=True)
class Measures:
    """The table of a bucket, what identifies it, and the sums behind norms and figures."""

    key: str
    table: pa.Table
    voices: dict[str, VoiceSums]
    speakers: SpeakerSums

    def columns(self) -> dict[str, np.ndarray]:
        """As `annotation.corpus.expressiveness.as_columns` gives them."""
        return {name: self.table[name].to_numpy() for name in MEASURES}


def corpus_path(out: Path, bucket: int, suffix: str) -> Path:
    """A file of the bucket that the passes hand to each other."""
    return out / "work" / "corpus" / f"{bucket_name(bucket)}.{suffix}"


def measure_bucket(out: Path, bucket: int, config: AnnotateConfig) -> int:
    """Writes the table of a bucket where it is not there as the units and settings are now; returns its rows.

    The bucket's labels are in one file a labeller afterwards.

    Raises:
        JobError: a unit's file or its labels are damaged.
    """
    units = read_units(out, bucket, config.label)
    path, corrections = corpus_path(out, bucket, "parquet"), in_force(out)
    made_of = [
        FORMAT,
        [unit.unit_id for unit in units],
        config.voice_attributes.model_dump(mode="json"),
        config.select.model_dump(mode="json"),
        config.texts.model_dump(mode="json"),
        fit_key(config),
        to_json_text(read_given(out, bucket), dict[str, GivenRecording]),
        "speakers" in config.corpus_labels.labels and config.corpus_labels.speakers.model_dump(mode="json"),
    ]
    store = LabelStore(out, config.voice_attributes)
    if path.exists() and store.is_merged(bucket):
        # The same units have the same clips, so these are the corrections that concern the bucket.
        known = corrected_clips(out, bucket, corrections)
        if parquet_metadata(path)["key"] == _key(made_of, known, corrections):
            return parquet_rows(path)
    # First, so that labels are read from one file in this pass and the next.
    store.merge(bucket)
    collected = collect(units, out, config)
    clips = in_order(collected)
    speakers = name_clips(clips, config) if "speakers" in config.corpus_labels.labels else SpeakerSums()
    key = _key(made_of, {clip.clip_id for clip in clips} & corrections.keys(), corrections)
    metadata = {"key": key, "voices": to_json_text(sum_clips(clips), dict[str, VoiceSums])}
    table = measures_table(clips).replace_schema_metadata(metadata | {"speakers": to_json_text(speakers)})
    write_parquet(path, table)
    return len(clips)


def _key(made_of: list[object], clips: set[ClipId], corrections: Corrections) -> str:
    """What a table is made of, with the corrections of its clips."""
    own = [to_json_text(corrections[clip_id]) for clip_id in sorted(clips)]
    return fingerprint([*made_of, *([own] if own else [])])


def corrected_clips(out: Path, bucket: int, corrections: Corrections) -> set[ClipId]:
    """Clips of a bucket, kept or not, that have a correction; of those in its table."""
    if not corrections:
        return set()
    clips = read_parquet(corpus_path(out, bucket, "parquet"), ("clip_id",))["clip_id"]
    return set(clips.filter(pc.is_in(clips, value_set=pa.array(corrections.keys(), pa.string()))).to_pylist())


def read_measures(out: Path, bucket: int) -> Measures:
    """The table that `measure_bucket` wrote."""
    table = read_parquet(corpus_path(out, bucket, "parquet"))
    metadata = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    voices = {name: VoiceSums(**sums) for name, sums in json.loads(metadata["voices"]).items()}
    return Measures(metadata["key"], table, voices, from_json_text(SpeakerSums, metadata["speakers"]))


def in_order(collected: CollectedClips) -> list[CorpusClip]:
    """All candidates by session, recording and time."""
    return sorted(collected.kept + collected.rejected, key=lambda clip: clip.order)


def measures_table(clips: list[CorpusClip]) -> pa.Table:
    """Named clips as rows of the table."""
    rows = [
        MeasuredClip(
            clip_id=clip.clip_id,
            hash=_hash(clip.clip_id),
            name=clip.window.name,
            start_sample=clip.candidate.start_sample,
            kept=clip.ending is None,
            speaker=clip.speaker,
            cluster=clip.cluster,
            language=clip.candidate.language,
            votes=_gender_votes(clip),
        )
        for clip in clips
    ]
    table = to_table(rows, MeasuredClip)
    for name, values in as_columns(_raw_columns(clips)).items():
        table = table.append_column(name, pa.array(values, pa.float64()))
    for name in (name for name in LASTING if name not in table.column_names):
        measured = [None if prosody is None else getattr(prosody, name) for prosody in map(prosody_of, clips)]
        table = table.append_column(name, pa.array(measured, pa.float64()))
    return table


def _gender_votes(clip: CorpusClip) -> tuple[GenderVote, ...]:
    gender = None if clip.voice.gender is None else clip.voice.gender.measured
    by_model = {} if gender is None else gender.by_model or {"model": gender.female}
    return tuple(GenderVote(source=source, female=female) for source, female in sorted(by_model.items()))


def _hash(clip_id: ClipId) -> int:
    """64 bits, as Arrow's int64."""
    return short_hash(clip_id, 8, signed=True)


def _raw_columns(clips: list[CorpusClip]) -> dict[str, list[float | None]]:
    measured = [prosody_of(clip) for clip in clips]
    columns: dict[str, list[float | None]] = {
        name: [None if prosody is None else getattr(prosody, name) for prosody in measured]
        for name in MEASURES
        if name in Prosody.__dataclass_fields__
    }
    # An answer that was not sure enough to be given measures all the same.
    emotions = [None if clip.voice.emotion is None else clip.voice.emotion.measured for clip in clips]
    columns["emotion_intensity"] = [None if emotion is None else emotion.intensity for emotion in emotions]
    return columns


def prosody_of(clip: CorpusClip) -> Prosody | None:
    """Measures of the clip's prosody, where there are any."""
    return None if clip.voice.prosody is None else clip.voice.prosody.value


def gender_of(clip: CorpusClip) -> str | None:
    """How the clip's voice sounds: as the corpus says, else by the classifier where it did not abstain."""
    gender = None if clip.voice.gender is None else clip.voice.gender.value
    return given_classes(clip.given).get("gender") or (None if gender is None else gender.label)


def sum_clips(clips: list[CorpusClip]) -> dict[str, VoiceSums]:
    """Sums of named clips behind the norms of facts."""
    known = [(clip, prosody) for clip in clips if (prosody := prosody_of(clip)) is not None]
    genders = [gender_of(clip) for clip, _ in known]
    return sum_voices(
        [prosody for _, prosody in known],
        [clip.speaker or "" for clip, _ in known],
        genders,
        [clip.candidate.language for clip, _ in known],
    )


def embeddings_of(clips: list[CorpusClip]) -> np.ndarray:
    """Unit vectors, float32 [N,D]; zeros where a clip has none."""
    vectors = [None if clip.voice.speaker is None else clip.voice.speaker.value for clip in clips]
    size = next((len(vector) for vector in vectors if vector is not None), 1)
    return np.stack([np.zeros(size, np.float32) if v is None else v for v in vectors]) if clips else np.zeros((0, size))


def name_clips(clips: list[CorpusClip], config: AnnotateConfig) -> SpeakerSums:
    """Names clusters; a name that the manifest or a correction gives stays, and measures how pure the clusters are."""
    rule = config.corpus_labels.speakers
    embeddings = embeddings_of(clips)
    labels = name_speakers(embeddings, [clip.session for clip in clips], rule)
    given = [(clip.speaker, name) for clip, name in zip(clips, labels.speaker, strict=True) if clip.speaker and name]
    for clip, name in zip(clips, labels.speaker, strict=True):
        clip.cluster = name or None
        clip.speaker = clip.speaker or name or None
    # A cluster belongs to a session, so a speaker is looked for within the session.
    pairs = [(f"{cluster.rsplit(':', 1)[0]}:{speaker}", cluster) for speaker, cluster in given]
    return SpeakerSums(
        clusters=len({name for name in labels.speaker if name}),
        without_voice=sum(not name for name in labels.speaker),
        known=len(given),
        in_cluster=largest_share_count([cluster for _, cluster in pairs], [speaker for speaker, _ in pairs]),
        in_speaker=largest_share_count([speaker for speaker, _ in pairs], [cluster for _, cluster in pairs]),
        sample=_cluster_voices(embeddings, labels.speaker),
    )


def _cluster_voices(embeddings: np.ndarray, clusters: Sequence[str]) -> tuple[ClusterVoice, ...]:
    return _sample(
        ClusterVoice(short_hash(name, 6), base64.b64encode(mean.astype("<f2").tobytes()).decode())
        for name, mean in zip(*cluster_means(embeddings, clusters), strict=True)
    )
