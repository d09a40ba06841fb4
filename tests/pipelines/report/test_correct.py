"""What the report offers to correct: the least trusted texts first, each as a row that is harmless and whole."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.corpus.corrections.csv_file import Correction, remember
from pipelines.report.bucket_summary import BucketSummary, merge
from pipelines.report.correct.doubtful import MAX_DOUBTFUL, MAX_TEXT
from pipelines.report.correct.page import MAX_EARLIER, correcting
from pipelines.report.table_summary import summarize
from pipelines.report.tables import Outcome
from voxmill.data.schemas import CLIPS, REJECTED

NOTHING = pa.table({})


def table(rows: list[dict[str, Any]], schema: pa.Schema = CLIPS) -> pa.Table:
    plain = {"text": "as it was said", "text_source": "recognised", "language": "en", "duration": 3.0}
    return pa.Table.from_pylist([{"clip_id": f"c{n}"} | plain | row for n, row in enumerate(rows)], schema=schema)


def summary(kept: list[dict[str, Any]], rejected: list[dict[str, Any]] | None = None) -> BucketSummary:
    return summarize(table(kept), table(rejected or [], REJECTED), NOTHING)


def names(found: BucketSummary) -> list[str]:
    return [clip.clip_id for clip in found.doubtful]


def test_the_least_trusted_come_first_whatever_their_texts_are_from() -> None:
    kept: list[dict[str, Any]] = [
        {"predicted_wer": 0.2},
        {"text_source": "given", "given_agreement": 0.7},
        {"transcript": {"mean_log_probability": -0.1}},
        {"text_source": "corrected", "predicted_wer": None},
        {"text_source": "corrected", "transcript": {"mean_log_probability": -5.0}},
        {},
    ]
    rejected: list[dict[str, Any]] = [
        {"clip_id": "r0", "stage": "transcription", "reason": "high_predicted_wer", "predicted_wer": 0.9},
        {"clip_id": "r1", "stage": "quality", "reason": "low_snr_db", "predicted_wer": 0.9},
        {"clip_id": "r2", "stage": "transcription", "reason": "empty_transcript", "text": " "},
        {"clip_id": "r3", "stage": "selection", "reason": "dropped_by_hand", "predicted_wer": 0.9},
    ]
    assert names(summary(kept, rejected)) == ["r2", "r0", "c1", "c0", "c2"]


def test_there_are_so_many_of_each_kind_from_whatever_buckets() -> None:
    kept = [{"predicted_wer": n / 100} for n in range(70)]
    rejected = [
        {"clip_id": f"r{n}", "predicted_wer": 1.0, "stage": "transcription", "reason": "high_predicted_wer"}
        for n in range(70)
    ]
    whole = summary(kept, rejected)
    assert names(whole)[MAX_DOUBTFUL:] == [f"c{n}" for n in range(69, 69 - MAX_DOUBTFUL, -1)]
    clips, dropped = table(kept), table(rejected, REJECTED)
    parts = [summarize(clips.slice(n, 30), dropped.slice(n, 30), NOTHING) for n in (60, 0, 30)]
    assert merge(parts[0], merge(parts[1], parts[2])).doubtful == whole.doubtful


def outcome(out: Path, found: BucketSummary) -> Outcome:
    return Outcome(out, {}, found)


@pytest.mark.parametrize("text", ["x" * (MAX_TEXT + 1), "caf\ufffd", "a\u202egnp.exe", "a\x00b", " ... ", ""])
def test_a_text_that_a_file_cannot_hold_is_not_offered_to_be_changed(tmp_path: Path, text: str) -> None:
    section = correcting(outcome(tmp_path, summary([{"text": text, "predicted_wer": 0.5}])))
    assert section is not None and section.offers[0].text.splitlines()[1] == "c0,,,,"
    assert len(section.cards[0].text) <= MAX_TEXT + 2


def test_a_dataset_without_clips_has_no_such_section_and_many_corrections_are_left_to_their_file(
    tmp_path: Path,
) -> None:
    assert correcting(outcome(tmp_path, summary([]))) is None
    corrections = {f"d{n}": Correction(clip_id=f"d{n}", drop=True) for n in range(MAX_EARLIER)}
    remember(tmp_path, corrections)
    section = correcting(outcome(tmp_path, summary([{"predicted_wer": 0.5}])))
    assert section is not None and (section.offers[0].rows, section.left_out) == (MAX_EARLIER + 1, 0)
    remember(tmp_path, corrections | {"e": Correction(clip_id="e", drop=True)})
    section = correcting(outcome(tmp_path, summary([{"predicted_wer": 0.5}])))
    assert section is not None and (section.offers[0].rows, section.left_out) == (1, MAX_EARLIER + 1)
