"""Schemas derived from the records: the columns of the indexes are a contract with every reader."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from voxmill.data.records import Clip, Fact, Latent, Recording, RejectedClip, StageName, Word
from voxmill.data.schemas import CLIPS, LATENTS, RECORDINGS, REJECTED, from_table, schema_of, to_table

PLACE = "shard string, offset int64, size int64, sha256 string"
ENDING = "stage string, reason string, value double, threshold double"
# Written down by hand before there were records: every column in its order.
EXPECTED_CLIPS = f"""
clip_id string, recording_id string, session string, position int64, start_sample int64, end_sample int64,
channel int64, sample_rate int64, duration double, text string,
words list<item: struct<word: string, start: double, end: double, probability: double>>,
text_source string, given_agreement double,
language string, language_probability double, speaker string, turn int64, origin string,
separated_by string, cut string,
quality struct<dnsmos_sig: double, dnsmos_bak: double, dnsmos_ovr: double, dnsmos_p808: double, snr_db: double,
 clipping: double, bandwidth_hz: double, loudness_lufs: double, gain_db: double, dc_offset: double>,
transcript struct<compression_ratio: double, repeated_ngram: double, characters_per_second: double,
 text_language: string, text_language_probability: double, mean_log_probability: double,
 no_speech_probability: double, redecoded: bool, aligner: string, recogniser: string,
 second_language: string, second_language_probability: double, language_confidence: double,
 redecoded_for: string, agreement: double,
 seconds_after_words: double, words_between: int64>,
licence string, path string, recognised_text string,
text_differences list<item: struct<kind: string, given: string, recognised: string, start: double, end: double,
 similarity: double, likely: bool>>,
given struct<gender: string, age: string, emotion: string, accent: string, dialect: string, style: string,
 caption: string, extra: string>,
predicted_wer double, distillmos double, cluster string,
prosody struct<f0_median_hz: double, f0_std_semitones: double, f0_range_semitones: double, voiced_share: double,
 energy_std_db: double, energy_range_db: double, rate: double, articulation_rate: double, pause_share: double,
 longest_pause: double, hnr_db: double, spectral_tilt_db: double, jitter: double, shimmer: double, pauses: int64,
 rate_unit: string, cpp_db: double, creak_share: double, tilt_db: double, loudness_std_db: double,
 f0_end_semitones: double, low_band_db: double, high_band_db: double, decay_db_per_s: double,
 emphasis: list<item: struct<word: string, start: double, end: double, score: double>>>,
expressiveness double, expressiveness_percentile double,
gender struct<label: string, probability: double, reason: string>,
emotion struct<label: string, probability: double, reason: string>,
age struct<label: string, probability: double, reason: string>,
dialect struct<label: string, probability: double, reason: string>,
singing_share double,
style struct<label: string, probability: double, reason: string>,
facts list<item: struct<attribute: string, axis: string, word: string, unit: string, relative_to: string,
 also: string, value: double, z: double, probability: double, source: string>>,
descriptions list<item: struct<axis: string, granularity: string, language: string, text: string, generator: string,
 facts: list<item: struct<attribute: string, word: string>>,
 verdicts: list<item: struct<attribute: string, claimed: string, predicted: string, verdict: string,
 probability: double>>, recall: double, repaired: bool, unread: list<item: string>>>,
references list<item: struct<clip_id: string, similarity: double>>,
no_reference string, parents list<item: string>, modes list<item: string>, stages list<item: int64>,
stage_modes list<item: struct<stage: int64, modes: list<item: string>>>, {PLACE}
"""
EXPECTED_RECORDINGS = f"""
recording_id string, path string, session string, state string, {ENDING}, detail string, duration double,
sample_rate int64, channels int64, channels_read string, codec string,
other_tracks list<item: struct<index: int64, codec: string, channels: int64, sample_rate: int64, language: string,
 title: string>>,
warnings list<item: struct<kind: string, detail: string>>, num_clips int64, num_kept int64, seconds_lost double,
ended_windows list<item: struct<start: double, end: double, channel: int64, stage: string, reason: string,
 value: double, threshold: double, detail: string>>,
separated bool, separation string, licence string
"""
EXPECTED_LATENTS = f"clip_id string, {PLACE}, num_frames int64, latent_space string"


def columns(text: str) -> list[tuple[str, str]]:
    """(name, type) of every column of a list as it is written above."""
    depth, start, entries = 0, 0, []
    line = " ".join(text.split()) + ","
    for place, letter in enumerate(line):
        depth += (letter == "<") - (letter == ">")
        if letter == "," and depth == 0:
            name, _, kind = line[start:place].strip().partition(" ")
            entries.append((name, kind))
            start = place + 1
    return entries


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (CLIPS, EXPECTED_CLIPS),
        (REJECTED, f"{EXPECTED_CLIPS}, {ENDING}"),
        (RECORDINGS, EXPECTED_RECORDINGS),
        (LATENTS, EXPECTED_LATENTS),
    ],
    ids=["clips", "rejected", "recordings", "latents"],
)
def test_columns_of_the_indexes_are_those_that_readers_know(schema: pa.Schema, expected: str) -> None:
    assert [(field.name, str(field.type)) for field in schema] == columns(expected)
    assert all(field.nullable for field in schema)


RECORDING = Recording(recording_id=None, path="a.wav", session="a", state="unreadable", detail="0 bytes")
LATENT = Latent(clip_id="c", shard="s", offset=1, size=2, sha256="f", num_frames=3, latent_space="l")


@pytest.mark.parametrize("record", [RECORDING, LATENT], ids=["recording", "latent"])
def test_a_record_comes_back_from_its_table(record: Any) -> None:
    assert from_table(type(record), to_table([record, record], type(record))) == [record, record]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nested:
    words: tuple[Word, ...]
    fact: Fact | None
    stage: StageName
    vector: np.ndarray | None


def test_nested_records_and_vectors_come_back_too() -> None:
    full = Nested(
        words=(Word("a", 0.1, 0.2, 0.9),),
        fact=Fact("pitch", "style", "high", value=240.0),
        stage=StageName.SPEAKER,
        vector=np.array([0.1, 0.2], dtype=np.float32),
    )
    empty = dataclasses.replace(full, words=(), fact=None, vector=None)
    table = to_table([full, empty], Nested, vector_size=2)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 2)
    again, nothing = from_table(Nested, table)
    assert again.vector is not None and again.vector.dtype == np.float32 and full.vector is not None
    assert again.vector.tobytes() == full.vector.tobytes()
    assert dataclasses.replace(again, vector=None) == dataclasses.replace(full, vector=None)
    assert nothing == empty


@dataclasses.dataclass
class Odd:
    table: dict[str, float]


def test_a_field_that_no_column_holds_is_refused() -> None:
    with pytest.raises(TypeError, match="no column holds a dict"):
        schema_of(Odd)


def test_a_rejected_clip_is_a_clip_and_its_ending() -> None:
    assert schema_of(RejectedClip).names[: len(CLIPS)] == schema_of(Clip).names


@dataclasses.dataclass(frozen=True)
class Leaf:
    name: str | None
    weight: float


@dataclasses.dataclass(frozen=True)
class Tree:
    root: Leaf | None
    leaves: tuple[Leaf, ...] | None
    groups: tuple[tuple[int, ...], ...]


def test_a_table_has_the_values_and_nulls_that_arrow_makes_of_plain_rows() -> None:
    """At every depth: null and empty lists, null structs, nulls in structs, structs in lists, lists in lists."""
    trees = [
        Tree(Leaf("a", 1.0), (Leaf("b", 2.0), Leaf(None, 3.0)), ((1, 2), (), (3,))),
        Tree(None, None, ()),
        Tree(Leaf(None, 4.0), (), ((),)),
    ]
    plain = [dataclasses.asdict(tree) for tree in trees]
    table = to_table(trees, Tree)
    table.validate(full=True)
    assert table.equals(pa.Table.from_pylist(plain, schema=schema_of(Tree)))
    assert to_table([], Tree).equals(pa.Table.from_pylist([], schema=schema_of(Tree)))
