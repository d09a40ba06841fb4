"""Evaluation from and to object storage: nothing is computed twice, on whatever machine it goes on."""

import json
import shutil
from pathlib import Path

import pytest

from evaluation.results.records import read_scores
from samples.fabricate import cut, turns
from tests.support.s3_server import BUCKET, s3_server
from voxmill.cli.app import run as voxmill
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import file_names, to_path, uri


def test_benchmark_recordings_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((start, end, text),) = turns("en-1", 1)
    cut("en-1", start, end, tmp_path / "in" / "wavs" / "good.wav")
    line = json.dumps({"id": "good", "text": text, "language": "en"})
    (tmp_path / "in" / "list.jsonl").write_text(line, encoding="utf-8")
    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path / "scratch"))
    with s3_server():
        place, out = to_path(f"s3://{BUCKET}/in"), to_path(f"s3://{BUCKET}/scores")
        place.fs.put(str(tmp_path / "in"), place.path, recursive=True)  # type: ignore[attr-defined]
        arguments = ["evaluate", f"texts:{uri(place)}/list.jsonl", "--system", f"peer=wavs:{uri(place)}/wavs"]
        arguments += ["-o", uri(out), "scoring.metrics=[transcript]", "tracking.enabled=false", "progress=false"]
        assert voxmill(arguments) == 0
        said = capsys.readouterr().out
        assert "3 scores computed, 0 read from the cache" in said and f"report: {uri(out)}/report.html" in said
        assert {"report.html", "report.md", "results.json", "scores", "cache"} <= file_names(out)
        # Another machine, which has nothing yet.
        shutil.rmtree(tmp_path / "scratch")
        assert voxmill(arguments) == 0
        assert "0 scores computed, 3 read from the cache" in capsys.readouterr().out
        (score,) = read_scores(local_copy(out, recursive=True))[("texts", "peer")]
        assert score.status == "ok"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "scratch"}
