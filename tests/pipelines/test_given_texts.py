"""Texts beside real recordings become the texts of their clips, also of a dataset that is finished already."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from annotation.speech.text_checks import tokens
from samples import bad_input
from samples.turns import SAMPLES
from tests.pipelines.test_annotate import run

SETTINGS = ("run.workers=1", "voice_attributes.labellers=[]", "corpus_labels.labels=[]")


def known_text(name: str) -> str:
    rows = map(json.loads, (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    turns = next(row["turns"] for row in rows if Path(row["path"]).stem == name)
    return " ".join(turn["text"] for turn in turns)


def rows(out: Path, index: str, name: str) -> list[dict[str, object]]:
    own = [row for row in pq.read_table(out / index).to_pylist() if row["path"] == f"{name}.flac"]
    return sorted(own, key=lambda row: row.get("start_sample", 0))


def test_texts_are_given_late_and_other_texts_end_named(tmp_path: Path) -> None:
    corpus, out = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    for name in ("en-1", "it-1"):
        shutil.copy(bad_input.RECORDINGS / f"{name}.flac", corpus)
    done = run(str(corpus), str(out), *SETTINGS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    recognised = rows(out, "clips.parquet", "it-1")
    assert recognised and {(row["text_source"], row["given_agreement"]) for row in recognised} == {("recognised", None)}

    (corpus / "en-1.txt").write_text(known_text("en-1"), encoding="utf-8")
    (corpus / "it-1.txt").write_text(known_text("fr-1"), encoding="utf-8")
    done = run(str(corpus), str(out), *SETTINGS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert json.loads((out / "run.json").read_text())["labelled"] == 0
    given = rows(out, "clips.parquet", "en-1")
    assert {row["text_source"] for row in given} == {"given"} and all(row["words"] for row in given)
    said = tokens(" ".join(str(row["text"]) for row in given), "en")
    assert said == tokens(known_text("en-1"), "en")
    assert rows(out, "clips.parquet", "it-1") == []
    (recording,) = rows(out, "recordings.parquet", "it-1")
    assert [warning["kind"] for warning in recording["warnings"]] == ["text_of_another_recording"]  # type: ignore[attr-defined]
    reasons = {row["reason"] for row in rows(out, "rejected.parquet", "it-1")}
    assert reasons & {"low_given_agreement", "not_in_given_text"}
