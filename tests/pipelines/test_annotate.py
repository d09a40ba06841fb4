"""The whole job on a few real recordings with the real models on a real local Ray."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import soundfile

from annotation.speech.text_checks import tokens
from pipelines.config import SelectConfig, VoiceAttributesConfig
from pipelines.units.label_store import LabelStore, merged_units
from pipelines.vacuum import vacuum
from samples import bad_input
from samples.fabricate import turns
from voxmill.cli.app import run as voxmill
from voxmill.data.snapshot import read_snapshot

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "pipelines" / "annotate.py"), *arguments]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


def shard_bytes(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (out / "shards").iterdir()}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    """The bad-input set and its dataset without controllability labels."""
    folder = tmp_path_factory.mktemp("a corpus")
    corpus, out = folder / "in", folder / "out"
    bad_input.make(corpus)
    done = run(str(corpus), str(out), "run.workers=1", "voice_attributes.labellers=[]", "corpus_labels.labels=[]")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return corpus, out, shard_bytes(out)


@pytest.fixture(scope="module")
def finished(bare: tuple[Path, Path, dict[str, str]]) -> tuple[Path, Path]:
    """The same dataset after the labels were added."""
    corpus, out, _ = bare
    done = run(str(corpus), str(out), "run.workers=1")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return corpus, out


def test_labels_are_added_later_without_touching_audio(
    bare: tuple[Path, Path, dict[str, str]], finished: tuple[Path, Path]
) -> None:
    _, out, before = bare
    assert shard_bytes(out) == before
    summary = json.loads((out / "run.json").read_text())
    assert summary["labelled"] == 0 and summary["units_attributed"] > 0
    rows = pq.read_table(out / "clips.parquet").to_pylist()
    assert all(row["prosody"] and row["speaker"] and row["descriptions"] and row["stages"] for row in rows)
    assert all(row["references"] or row["no_reference"] for row in rows)
    assert summary["corpus_labels"]["references"]["rule_violations"] == 0
    assert all(v["verdict"] != "fail" for row in rows for d in row["descriptions"] for v in d["verdicts"])
    assert {row["emotion"]["reason"] for row in rows} == {"no_model"}
    page = (out / "report.html").read_text()
    assert 'id="listen"' in page and "no_model" in page


def label_files(out: Path) -> dict[Path, int]:
    """Files of the voice labellers, and when each was written."""
    folder = out / "work" / "labels"
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A dataset after a second run, what that said, and the files of its labels before and after it."""

    out: Path
    said: str
    units: tuple[dict[Path, int], dict[Path, int]]
    labels: tuple[dict[Path, int], dict[Path, int]]


READ_AS_GIVEN = {"wrong extension": ("en-1", 1, 2), "chained rates": ("en-2", 6, 8)}
"""Recordings that get the text of what is said: of which sample, from which turn to which."""


def given_text(name: str, first: int, last: int) -> str:
    return " ".join(text for _, _, text in turns(name, last)[first:])


@pytest.fixture(scope="module")
def changed(finished: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Changed:
    """A copy of it, vacuumed, in one run with another setting of a labeller, other thresholds, and texts beside some
    recordings, of which one is another's."""
    corpus = finished[0]
    out = Path(shutil.copytree(finished[1], tmp_path_factory.mktemp("changed") / "out"))
    vacuum(out, keep=0, dry_run=False)
    units, labels = unit_files(out), label_files(out)
    texts = {corpus / f"{name}.txt": given_text(*what) for name, what in READ_AS_GIVEN.items()}
    texts[corpus / "a" / "same name.txt"] = given_text("fr-1", 0, 4)
    try:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        settings = ("voice_attributes.gender.min_probability=0.99", "select.min_bandwidth_hz=5000")
        done = run(str(corpus), str(out), "run.workers=1", *settings, "select.wer_fit=null")
    finally:
        for path in texts:
            path.unlink()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Changed(
        out=out, said=done.stdout + done.stderr, units=(units, unit_files(out)), labels=(labels, label_files(out))
    )


def unit_files(out: Path) -> dict[Path, int]:
    """Files of finished units, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in (out / "work" / "units").rglob("*.tar")}


def test_one_labeller_can_be_run_again_alone(changed: Changed) -> None:
    before, after = changed.labels
    assert before.items() <= after.items()
    assert {path.parent.name.split("-")[0] for path in after.keys() - before.keys()} == {"gender"}


def test_every_input_has_one_terminal_state(finished: tuple[Path, Path]) -> None:
    _, out = finished
    rows = pq.read_table(out / "recordings.parquet").to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(bad_input.CASES)
    for row in rows:
        expected = bad_input.CASES[row["path"]]
        assert row["state"] == expected.state, row
        assert not expected.reasons or row["reason"] in expected.reasons, row
    warnings = {row["path"]: {one["kind"]: one["detail"] for one in row["warnings"]} for row in rows}
    assert "damaged_data" in warnings["truncated.flac"] and "ends_early" in warnings["lying header.wav"]
    assert all(row["duration"] < 20 for row in rows if row["path"] == "lying header.wav")
    assert "10 samples not finite" in warnings["some nan.wav"]["non_finite"]
    assert "wrapped_size" in warnings["wrapped size.wav"] and "rate_change" in warnings["chained rates.ogg"]
    assert "16 bits" in warnings["int16 floats.wav"]["out_of_scale"]
    others = json.loads((out / "run.json").read_text())["other_files"]
    assert others == {"count": len(bad_input.OTHERS), "examples": list(bad_input.OTHERS)}
    details = {row["path"]: row["detail"] for row in rows}
    assert details["emoji 🎙.flac"] == "dotted.name.v1.2.flac"


def test_a_speaker_a_channel_is_two_tracks_of_one_session(finished: tuple[Path, Path]) -> None:
    _, out = finished
    rows = {row["path"]: row for row in pq.read_table(out / "recordings.parquet").to_pylist()}
    name = "speaker a channel.flac"
    assert rows[name]["channels_read"] == "split" and rows[name]["seconds_lost"] == 0
    clips = [clip for clip in pq.read_table(out / "clips.parquet").to_pylist() if clip["path"] == name]
    assert [(clip["channel"], clip["speaker"]) for clip in clips] == [
        (0, f"{name}:channel-0"),
        (1, f"{name}:channel-1"),
    ]
    assert {clip["session"] for clip in clips} == {name} and len({clip["clip_id"] for clip in clips}) == 2
    # They speak at once for half a second, which neither loses.
    first, second = clips
    assert first["end_sample"] > second["start_sample"]
    assert first["text"].lower().startswith("to increase") and "list of people" in second["text"]


def test_a_telephone_band_in_a_48_khz_file_is_measured(finished: tuple[Path, Path]) -> None:
    _, out = finished
    recordings = {row["path"]: row["recording_id"] for row in pq.read_table(out / "recordings.parquet").to_pylist()}
    clips = pq.read_table(out / "clips.parquet").to_pylist()
    limited = [clip for clip in clips if clip["recording_id"] == recordings["8 kHz upsampled.flac"]]
    assert limited and all(c["sample_rate"] == 48000 and c["quality"]["bandwidth_hz"] < 4400 for c in limited)


def test_clips_are_what_the_index_says(finished: tuple[Path, Path]) -> None:
    import webdataset

    _, out = finished
    rows = {row["clip_id"]: row for row in pq.read_table(out / "clips.parquet").to_pylist()}
    assert rows
    shards = sorted(str(path) for path in (out / "shards").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert {sample["__key__"] for sample in samples} == set(rows)
    for sample in samples:
        row = rows[sample["__key__"]]
        audio, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert len(audio) == row["end_sample"] - row["start_sample"] and rate == row["sample_rate"]
        assert json.loads(sample["json"])["text"] == row["text"] != ""
        assert all(0 <= w["start"] <= w["end"] <= row["duration"] + 1e-6 for w in row["words"])
        with open(out / row["shard"], "rb") as file:
            file.seek(row["offset"])
            assert file.read(row["size"]) == sample["flac"]


def test_a_changed_threshold_runs_no_model(finished: tuple[Path, Path], changed: Changed) -> None:
    """Nor does what a vacuum left need one."""
    predicted = pq.read_table(finished[1] / "clips.parquet")["predicted_wer"].to_pylist()
    assert predicted and all(0 <= rate <= SelectConfig().max_predicted_wer for rate in predicted)
    before, after = changed.units
    assert before and before == after
    assert json.loads((changed.out / "run.json").read_text())["labelled"] == 0
    rejected = pq.read_table(changed.out / "rejected.parquet").to_pylist()
    assert {row["path"] for row in rejected if row["reason"] == "low_bandwidth_hz"} >= {"8 kHz upsampled.flac"}
    assert {row["predicted_wer"] for row in rejected} == {None}
    assert "no fit predicts the word error rates of whisper-base" in changed.said
    assert "Nothing predicts the word error rates" in (changed.out / "report.html").read_text()


def clips_of(out: Path, index: str, stem: str) -> list[dict[str, Any]]:
    """Rows of a recording's clips, in order of time."""
    rows = [row for row in pq.read_table(out / index).to_pylist() if row["path"].rpartition(".")[0] == stem]
    return sorted(rows, key=lambda row: row["start_sample"])


def test_texts_are_given_late_and_other_texts_end_named(finished: tuple[Path, Path], changed: Changed) -> None:
    for stem, what in READ_AS_GIVEN.items():
        recognised, given = (clips_of(out, "clips.parquet", stem) for out in (finished[1], changed.out))
        assert {(row["text_source"], row["given_agreement"]) for row in recognised} == {("recognised", None)}
        assert given and {row["text_source"] for row in given} == {"given"} and all(row["words"] for row in given)
        assert tokens(" ".join(row["text"] for row in given), "en") == tokens(given_text(*what), "en")
    assert clips_of(finished[1], "clips.parquet", "a/same name")
    assert clips_of(changed.out, "clips.parquet", "a/same name") == []
    rows = {row["path"]: row for row in pq.read_table(changed.out / "recordings.parquet").to_pylist()}
    assert [one["kind"] for one in rows["a/same name.flac"]["warnings"]] == ["text_of_another_recording"]
    reasons = {row["reason"] for row in clips_of(changed.out, "rejected.parquet", "a/same name")}
    assert reasons & {"low_given_agreement", "not_in_given_text"}


@pytest.mark.slow
def test_three_pools_give_the_same_bytes(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """How the job runs where there are GPUs: audio travels from pool to pool."""
    corpus, out = finished
    done = run(str(corpus), str(tmp_path / "pools"), "run.workers=1", "run.pools=true")
    assert done.returncode == 0, done.stderr[-4000:]
    assert shard_bytes(tmp_path / "pools") == shard_bytes(out)


def test_mistakes_are_one_line_and_status_two(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = finished
    cases = {
        "other labels": (str(corpus), str(out), "label.segmentation.max_seconds=10"),
        "unknown key": (str(corpus), str(tmp_path / "x"), "select.min_dnsmos=3"),
        "older key": (str(corpus), str(tmp_path / "x"), "voices.labellers=[]"),
        "no input": (str(tmp_path / "nowhere"), str(tmp_path / "x")),
        "foreign folder": (str(corpus), str(corpus)),
        "a share of a GPU": (str(corpus), str(tmp_path / "x"), "run.gpu_share=0.5"),
        "no such fit": (str(corpus), str(tmp_path / "x"), f"select.wer_fit={tmp_path / 'none.json'}"),
        "no such shard": (str(corpus), str(tmp_path / "x"), "--shard", "4/4"),
        "no such corrections": (str(corpus), str(out), "--corrections", str(tmp_path / "none.csv")),
        "a share corrects": (str(corpus), str(out), "--shard", "0/2", "--corrections", str(tmp_path / "none.csv")),
    }
    said = {}
    for name, arguments in cases.items():
        assert voxmill(["annotate", *arguments]) == 2, name
        said[name] = capsys.readouterr().err
        assert len(said[name].strip().splitlines()) == 1, (name, said[name])
    assert "none.csv: cannot be read" in said["no such corrections"] and "voxmill finish" in said["a share corrects"]
    assert "max_seconds" in said["other labels"] and "'voice_attributes'" in said["older key"]
    done = run(*cases["other labels"])
    assert done.returncode == 2 and done.stderr == said["other labels"]


def test_vacuum_removes_what_the_finished_run_did_not_use(finished: tuple[Path, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished[1], tmp_path / "out"))
    snapshot = read_snapshot(out)
    assert snapshot is not None
    for shard in snapshot.files[0].shards:
        assert hashlib.sha256((out / shard.name).read_bytes()).hexdigest() == shard.sha256
    # Labels of a configuration that another test used, or none.
    vacuum(out, keep=0, dry_run=False)
    used = json.loads((out / "run.json").read_text())["config"]["voice_attributes"]["labellers"]
    folder = next((out / "work" / "labels").iterdir())
    assert len(list(folder.parent.iterdir())) == len(used)
    stray = {
        f"work/units/0000/{'0' * 32}.tar": "units",
        f"work/labels/{folder.name}/0000/{'0' * 32}.json": "labels",
        f"work/labels/gender-0123456789ab/0000/{'1' * 32}.json": "labels",
        "shards/clips-000009-0123456789ab.tar": "shards",
    }
    for name in stray:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"x")
    assert {one.file.name: one.kind for one in vacuum(out, keep=0, dry_run=False)} == stray
    # Labels of a unit that is not planned any more, in the files of a bucket that has others.
    config = VoiceAttributesConfig.model_validate(
        json.loads((out / "run.json").read_text())["config"]["voice_attributes"]
    )
    merged = [LabelStore(out, config).merged_path(name, 0) for name in config.labellers]
    known = [merged_units(path) for path in merged]
    assert all(known)
    LabelStore(out, config).write_nothing(0, "2" * 32)
    LabelStore(out, config).merge(0)
    assert all("2" * 32 in merged_units(path) for path in merged)
    found = vacuum(out, keep=0, dry_run=False)
    assert {one.file.name for one in found} == {path.relative_to(out).as_posix() for path in merged}
    assert [merged_units(path) for path in merged] == known
