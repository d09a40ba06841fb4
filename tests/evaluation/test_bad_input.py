"""Everything that can be wrong with the input of a run, at once: nothing is lost, and the report counts each case."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from evaluation.results.comparison import counts_of
from evaluation.results.records import read_scores
from samples.fabricate import cut, turns
from tests.evaluation.utterances import score_of
from tests.support.chat_server import Handler, chat_server
from voxmill.cli.app import run as voxmill

WORDS = "Two words."
# Wavs named by their faults; `good` and `rate` are speech, the latter at 48 kHz.
NAMES = ("good", "rate", "missing", "silent", "empty", "unreadable", "not_numbers")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`en/meta.lst` with two malformed lines, `list.jsonl` with descriptions, and `wavs/`."""
    folder = tmp_path_factory.mktemp("given")
    ((start, end, text),) = turns("en-1", 1)
    good = cut("en-1", start, end, folder / "wavs" / "good.wav")
    samples, rate = soundfile.read(good, dtype="float32")
    soundfile.write(folder / "wavs" / "rate.wav", np.repeat(samples, 2), 2 * rate)
    soundfile.write(folder / "wavs" / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "wavs" / "empty.wav", np.zeros(0), 16000)
    soundfile.write(folder / "wavs" / "not_numbers.wav", np.full(16000, np.nan, "float32"), 16000, subtype="FLOAT")
    (folder / "wavs" / "unreadable.wav").write_bytes(b"RIFF....not audio")
    lines = [f"{name}|{text if name in ('good', 'rate') else WORDS}" for name in NAMES]
    (folder / "en").mkdir()
    (folder / "en" / "meta.lst").write_text("\n".join([lines[0], "one field only", *lines[1:], "a|b|c|d|e|f", ""]))
    described = [
        {"id": name, "text": text, "language": "en", "description": f"Speak {kind}."}
        for name, kind in (("good", "calmly"), ("rate", "loudly"), ("missing", "fast"))
    ]
    (folder / "list.jsonl").write_text("\n".join(json.dumps(line) for line in described), encoding="utf-8")
    return folder


def run(given: Path, out: Path, benchmark: str, *settings: str) -> int:
    system = ["--system", f"peer=wavs:{given / 'wavs'}", "--out", str(out), "progress=false"]
    return voxmill(["evaluate", benchmark, *system, *settings])


def test_bad_wavs_and_lines_are_counted_in_the_report(given: Path, tmp_path: Path) -> None:
    settings = ["scoring.metrics=[transcript]", "tracking.enabled=false"]
    assert run(given, tmp_path, f"seed-tts-eval:{given / 'en' / 'meta.lst'}", *settings) == 0
    scores = {score.id: score for score in read_scores(tmp_path)[("seed-tts-eval", "peer")]}
    assert {name: scores[name].status for name in NAMES} == {
        name: "ok" if name in ("good", "rate") else name for name in NAMES
    }
    assert scores["rate"].hypothesis == scores["good"].hypothesis
    page, plain = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    for count in ("2 ok", "1 empty", "1 missing", "1 not_numbers", "1 silent", "1 unreadable", "resampled"):
        assert count in page and count in plain, count
    for line in ("meta.lst, line 2: 1 fields", "meta.lst, line 9: 6 fields"):
        assert line in page and line in plain, line
    assert "2 malformed lines" in page
    # Strict: a failed utterance is wrong from end to end; official leaves it out.
    estimates = {
        score["metric"]: score["estimate"] for score in json.loads((tmp_path / "results.json").read_text())["scores"]
    }
    assert estimates["strict"]["n"] == 7 and estimates["official"]["n"] == 2 and estimates["strict"]["value"] > 0.2


def test_an_empty_hypothesis_is_counted() -> None:
    scores = [score_of(f"u{index}", hypothesis=text) for index, text in enumerate((" ", "words", None))]
    assert counts_of(scores) == {"ok": 3, "empty hypothesis": 1}


def _garbage(handler: Handler, number: int, body: dict[str, Any]) -> None:
    handler.reply("It sounds calm to me!")


def _gone(handler: Handler, number: int, body: dict[str, Any]) -> None:
    handler.send("gone", 503)


@pytest.mark.parametrize(
    ("answer", "status", "counted"),
    [(_garbage, 0, "2 no verdict: garbage"), (_gone, 1, "1 no verdict: http_503, 1 no verdict: judge_down")],
    ids=["garbage", "down"],
)
def test_a_judge_without_verdicts_is_counted_and_loses_nothing(
    given: Path, tmp_path: Path, answer: Callable[..., None], status: int, counted: str
) -> None:
    with chat_server(answer) as server:
        settings = [
            f"judge.endpoint.url={server.url}",
            "judge.endpoint.model=ear",
            "judge.endpoint.retries=0",
            "judge.workers=1",
            "judge.endpoint.give_up_after=2",
            "judge.endpoint.requests_per_minute=6000000",
            "judge.attempts=1",
            "scoring.metrics=[]",
            "tracking.enabled=false",
        ]
        assert run(given, tmp_path, f"texts:{given / 'list.jsonl'}", *settings) == status
    page, plain = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    expected = [*counted.split(", "), "1 no verdict: no_audio", "1 missing"]
    assert all(count in page and count in plain for count in expected), plain
    assert ("the judge: " in page) == ("the judge: " in plain) == (status == 1)
    scores = {
        score["metric"]: score["estimate"] for score in json.loads((tmp_path / "results.json").read_text())["scores"]
    }
    assert "followed" not in scores
    assert (scores["followed_nulls_false"]["value"], scores["followed_nulls_true"]["value"]) == (0.0, 1.0)


def test_a_tracking_server_that_is_down_is_named_in_the_report(given: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
    settings = ["scoring.metrics=[]", f"tracking.uri={uri}", "tracking.timeout_seconds=2"]
    assert run(given, tmp_path, f"texts:{given / 'list.jsonl'}", *settings) == 1
    assert (tmp_path / "mlflow.db").is_file()
    for page in ((tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()):
        assert uri in page and "does not take the runs" in page
