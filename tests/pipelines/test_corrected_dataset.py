"""A finished dataset is corrected by hand: fabricated finished work through the whole finish, no model, no Ray."""

import base64
import datetime
import io
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from annotation.voice.prosody import count_units
from pipelines.config import AnnotateConfig
from pipelines.corpus.corrections.csv_file import Correction, csv_text, read_corrections
from pipelines.finish import Labelled, Started, finish
from pipelines.report.correct.doubtful import MAX_DOUBTFUL
from samples.finished_work import CLIPS_A_RECORDING, make_finished
from voxmill.core.errors import UserError
from voxmill.core.progress import Progress

Row = dict[str, Any]
LABELLERS = ["prosody", "speaker", "gender"]


def configured(corrections: Path | None = None, **select: object) -> AnnotateConfig:
    return AnnotateConfig.model_validate(
        {
            "write": {"buckets": 1},
            "run": {"workers": 1, "progress": False},
            "voice_attributes": {"labellers": LABELLERS},
            "corpus_labels": {"norms": "refit"},
            "corrections": corrections,
            "select": select,
        }
    )


def run(out: Path, corrections: Sequence[Correction] | None = None, **select: object) -> tuple[Row, str]:
    """The finish as `voxmill annotate` runs it; returns `run.json` and what it says."""
    path = None
    if corrections is not None:
        path = out.parent / "given.csv"
        path.write_text(csv_text(corrections), encoding="utf-8")
    started = Started(time=datetime.datetime.now(datetime.UTC), clock=time.perf_counter())
    labelled = Labelled(units=1, found_done=1, attributed=0)
    said = io.StringIO()
    finish(out, configured(path, **select), Progress(file=said), labelled, started)
    return json.loads((out / "run.json").read_text()), said.getvalue()


def rows(out: Path, index: str = "clips.parquet") -> dict[str, Row]:
    return {row["clip_id"]: row for row in pq.read_table(out / index).to_pylist()}


def content(out: Path) -> dict[str, bytes]:
    """Bytes of the dataset: its indexes, and the shards that they name."""
    names = {row["shard"] for row in rows(out).values()} | {"clips.parquet", "rejected.parquet", "recordings.parquet"}
    return {name: (out / name).read_bytes() for name in sorted(names)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of a session each, nothing corrected."""
    out = tmp_path_factory.mktemp("plain") / "out"
    make_finished(out, 2 * CLIPS_A_RECORDING, configured())
    run(out)
    return out


@pytest.fixture
def out(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "out"))


def test_what_is_corrected_stands_everywhere_and_the_rest_stays(out: Path) -> None:
    before, lost = rows(out), rows(out, "rejected.parquet")
    text, gone, named, spoken, foreign, confirmed, kept = sorted(before)[:7]
    again = "The river, quietly, ran past Anna's old market before seven!"
    said = [
        Correction(clip_id=text, text=again),
        Correction(clip_id=gone, text="dropped whatever it says", drop=True),
        Correction(clip_id=named, speaker="Anna"),
        Correction(clip_id=spoken, language="nl", drop=False),
        Correction(clip_id=foreign, language="nl"),
        Correction(clip_id=confirmed, drop=False),
        Correction(clip_id=kept, text=before[kept]["text"]),
        Correction(clip_id="nosuchclip", text="of another dataset"),
    ]
    record, shown = run(out, said)
    assert "corrections of clips that are not here: 1 of 8, such as nosuchclip" in shown
    assert "corrections: 2 confirmed, 2 language, 1 drop, 1 speaker, 1 text, 1 unchanged" in shown
    now, dropped = rows(out), rows(out, "rejected.parquet")
    assert record["corrections"] == {
        "rows": 8,
        "clips": {"confirmed": 2, "language": 2, "drop": 1, "speaker": 1, "text": 1, "unchanged": 1},
        "unknown": 1,
        "unknown_examples": ["nosuchclip"],
    }
    assert now.keys() == before.keys() - {gone, foreign} and dropped.keys() == lost.keys() | {gone, foreign}
    # Its text was recognised as that of the language that it has not.
    assert dropped[foreign]["reason"] == "text_in_another_language" and dropped[foreign]["language"] == "nl"
    assert (dropped[gone]["stage"], dropped[gone]["reason"]) == ("selection", "dropped_by_hand")
    one = now[text]
    assert (one["text"], one["text_source"], one["recognised_text"]) == (again, "corrected", before[text]["text"])
    assert one["predicted_wer"] is None and one["given_agreement"] is None
    assert [word["word"] for word in one["words"]] == again.split()
    times = [time for word in one["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times) and times[-1] <= one["duration"]
    seconds = one["words"][-1]["end"] - one["words"][0]["start"]
    assert one["prosody"]["rate"] == pytest.approx(count_units(again, "en")[0] / seconds)
    assert one["prosody"]["f0_median_hz"] == before[text]["prosody"]["f0_median_hz"]
    assert now[named]["speaker"] == "Anna" and now[named]["text_source"] == "recognised"
    assert now[spoken]["language"] == "nl" and now[spoken]["text_source"] == "corrected"
    assert (now[confirmed]["text"], now[confirmed]["text_source"]) == (before[confirmed]["text"], "corrected")
    assert now[confirmed]["words"] == before[confirmed]["words"]
    assert now[kept]["text_source"] == "recognised"
    members = {
        sample["__key__"]: json.loads(sample["json"])
        for shard in {row["shard"] for row in now.values()}
        for sample in webdataset.WebDataset(str(out / shard), shardshuffle=False)
    }
    for clip_id, row in now.items():
        member = members[clip_id]
        assert (member["text"], member["text_source"], member["language"]) == (
            row["text"],
            row["text_source"],
            row["language"],
        )
    assert members[named]["speaker"] == "Anna"


def test_a_run_without_the_file_keeps_them_and_without_rows_forgets_them(
    out: Path, plain: Path, tmp_path: Path
) -> None:
    clip, other = sorted(rows(out))[:2]
    said = [Correction(clip_id=clip, text="quite another text"), Correction(clip_id=other, drop=True)]
    run(out, said)
    corrected = content(out)
    assert corrected != content(plain)
    assert run(out)[0]["corrections"]["clips"] == {"drop": 1, "text": 1} and content(out) == corrected
    # Another dataset of the same work, corrected from the first run on, is the same.
    first = tmp_path / "first" / "out"
    make_finished(first, 2 * CLIPS_A_RECORDING, configured())
    run(first, said[::-1])
    assert rows(first).keys() == rows(out).keys()
    for index in ("clips.parquet", "rejected.parquet"):
        of_both = [pq.read_table(folder / index).drop(["shard", "offset"]) for folder in (first, out)]
        assert of_both[0].equals(of_both[1])
    shown = run(out, said[:1])[1]
    assert f"no longer apply: 1, such as that of {other}" in shown
    assert other in rows(out)
    run(out, [])
    assert not (out / "corrections.csv").exists() and run(out)[0]["corrections"]["rows"] == 0
    assert rows(out).keys() == rows(plain).keys()
    assert {row["text_source"] for row in rows(out).values()} == {"recognised"}


def offered(out: Path) -> list[bytes]:
    """The files that the report offers: of all its clips, of the kept ones, of the rejected ones."""
    page = (out / "report.html").read_text(encoding="utf-8")
    return [base64.b64decode(text) for text in re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', page)]


def test_the_file_that_the_report_offers_changes_nothing_until_it_is_changed(out: Path) -> None:
    before = content(out)
    everything, kept = offered(out)
    assert everything == kept and kept.count(b"\r\n") == 1 + MAX_DOUBTFUL
    path = out.parent / "offered.csv"
    path.write_bytes(everything)
    worst = read_corrections(path)
    by_doubt = sorted(rows(out).values(), key=lambda row: -row["predicted_wer"])
    assert worst.keys() <= {row["clip_id"] for row in by_doubt if row["predicted_wer"] >= by_doubt[19]["predicted_wer"]}
    record, _ = run(out, list(worst.values()))
    assert record["corrections"]["clips"] == {"unchanged": MAX_DOUBTFUL} and content(out) == before
    # What is corrected is offered again with what comes next, so that the next file stands for all.
    clip_id, other = list(worst)[:2]
    run(out, [Correction(clip_id=clip_id, text="=1+1 is two"), Correction(clip_id=other, speaker="Anna")])
    path.write_bytes(offered(out)[0])
    assert b"'=1+1 is two" in path.read_bytes() and len(read_corrections(path)) == MAX_DOUBTFUL + 1
    assert read_corrections(path)[clip_id].text == "=1+1 is two"
    assert read_corrections(path)[other] == Correction(clip_id=other, speaker="Anna", text=worst[other].text)


def test_a_text_that_was_rejected_comes_back_corrected_and_nothing_else_does(out: Path) -> None:
    """Rules of texts let a person's pass, those of sound do not."""
    before = rows(out)
    loud = min(before.values(), key=lambda row: row["quality"]["snr_db"])["clip_id"]
    quiet = max(before.values(), key=lambda row: row["quality"]["snr_db"])["clip_id"]
    strict = {"max_predicted_wer": 0.0, "min_snr_db": before[loud]["quality"]["snr_db"] + 0.01}
    run(out, None, **strict)
    assert {row["reason"] for row in rows(out, "rejected.parquet").values()} >= {"high_predicted_wer", "low_snr_db"}
    assert not {loud, quiet} & rows(out).keys()
    run(
        out, [Correction(clip_id=loud, text="said as it is"), Correction(clip_id=quiet, text="said as it is")], **strict
    )
    assert rows(out)[quiet]["text_source"] == "corrected" and rows(out)[quiet]["predicted_wer"] is None
    assert rows(out, "rejected.parquet")[loud]["reason"] == "low_snr_db"


def test_a_corrected_speaker_is_no_reference_of_another_voice(out: Path) -> None:
    before = rows(out)
    clip = next(row for row in before.values() if row["references"])
    other = clip["references"][0]["clip_id"]
    record, _ = run(out, [Correction(clip_id=clip["clip_id"], speaker="Anna")])
    now = rows(out)
    assert record["corpus_labels"]["references"]["rule_violations"] == 0
    assert now[clip["clip_id"]]["references"] == [] and now[clip["clip_id"]]["no_reference"] == "no_similar_voice"
    used = {ref["clip_id"] for row in now.values() for ref in row["references"] or ()}
    assert clip["clip_id"] not in used
    run(out, [Correction(clip_id=name, speaker="Anna") for name in (clip["clip_id"], other)])
    assert [ref["clip_id"] for ref in rows(out)[clip["clip_id"]]["references"]] == [other]


@pytest.mark.parametrize("damage", [b"clip_id,text\nc1,caf\xe9\n", b"clip_id;texts\n"])
def test_a_dataset_whose_corrections_were_damaged_says_so(out: Path, damage: bytes) -> None:
    (out / "corrections.csv").write_bytes(damage)
    with pytest.raises(UserError, match="corrections.csv: "):
        run(out)
