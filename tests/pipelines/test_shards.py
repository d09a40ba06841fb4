"""`annotate --shard i/n`: jobs without a common Ray label the buckets of one OUT, and `finish` makes the dataset."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from samples import bad_input

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = ("a/same name.flac", "emoji 🎙.flac", "truncated.flac", "text.wav", "some nan.wav")
SETTINGS = ("run.workers=1", "write.buckets=4", "voice_attributes.labellers=[]", "corpus_labels.labels=[]")


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    code = f"from voxmill.cli.app import script; script({name!r})"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments, *SETTINGS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def end(job: subprocess.Popen[str]) -> str:
    output, errors = job.communicate(timeout=400)
    assert job.returncode == 0, output[-2000:] + errors[-3000:]
    return output + errors


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (out / "shards").rglob("*.tar")}


@pytest.mark.slow
def test_two_shards_at_once_and_the_finish_give_what_one_job_gives(tmp_path: Path) -> None:
    corpus, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    bad_input.make(corpus)
    for name in set(bad_input.CASES) - set(CHOSEN):
        (corpus / name).unlink()
    end(start("annotate", str(corpus), str(whole)))
    shards = [start("annotate", str(corpus), str(out), "--shard", f"{number}/2") for number in (0, 1)]
    printed = [end(shard) for shard in shards]
    assert all(f"share {number} of 2" in text for number, text in enumerate(printed))
    assert not (out / "clips.parquet").exists() and not list((out / "work").glob("lease*"))
    end(start("finish", str(corpus), str(out)))
    assert digests(out) == digests(whole) != {}
    run = json.loads((out / "run.json").read_text())
    assert run["labelled"] == 0 and run["model_calls_repeated"] == 0


def test_the_finish_refuses_where_work_is_left(tmp_path: Path) -> None:
    corpus, out = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    shutil.copy(ROOT / "samples" / "recordings" / "en-1.flac", corpus)
    job = start("finish", str(corpus), str(out))
    _, errors = job.communicate(timeout=400)
    assert job.returncode == 2 and not (out / "clips.parquet").exists()
    (line,) = errors.strip().splitlines()
    assert "of 1 work units, 1 are not labelled" in line and "run `voxmill annotate` first" in line
