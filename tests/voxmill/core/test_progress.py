"""Progress in a log: rare lines while it works, one at the end, none where nobody wants any."""

import io

import pytest

from voxmill.core import progress
from voxmill.core.progress import Progress


def lines(enabled: bool = True, total: float | None = 200, *, transient: bool = False) -> list[str]:
    file = io.StringIO()
    job = Progress(enabled, file=file, transient=transient)
    job.print("scanning")
    with job.stage("Reading", total, "clips") as bar:
        for _ in range(4):
            bar.advance(50, note="ignored in a log")
    assert bar.done == 200
    return file.getvalue().splitlines()


def test_a_log_gets_a_line_at_the_end() -> None:
    first, last = lines()
    assert first == "scanning" and last.startswith("Reading: 200 clips in ")
    assert lines(total=None)[1].startswith("Reading: 200 clips in ")
    assert lines(transient=True) == ["scanning"]
    assert lines(enabled=False) == []


def test_a_long_stage_tells_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    assert lines()[1:4] == [f"Reading: {done} of 200 clips, about 0 s left" for done in ("50", "100", "150")]
    assert lines(total=None)[1] == "Reading: 50 clips"
