"""Efficiency of the oracle's small checkpoint: what is counted must add up."""

import json
from pathlib import Path

import pytest

from tests.support.oracle import read_oracle
from voxmill.cli.app import run as voxmill


def test_rounds_add_up_and_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oracle = read_oracle()
    reference = str(oracle.wav("ref_24k.wav").resolve())
    lines = [{"text": "hello", "language": "en"}, {"text": "hello", "language": "en", "reference": reference}]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    arguments = ["evaluate", "efficiency", str(oracle.checkpoint), str(tmp_path / "list.jsonl"), "--device", "cpu"]
    assert voxmill([*arguments, "--concurrency", "1,2", "--out", str(tmp_path / "o.json")]) == 0
    one, two = json.loads((tmp_path / "o.json").read_text())
    assert (one["concurrency"], two["concurrency"]) == (1, 2)
    for figures in (one, two):
        assert figures["rtf"] == pytest.approx(figures["wall_seconds"] / figures["audio_seconds"])
        assert 0 < figures["first_patch_median"] <= figures["first_patch_p95"] < figures["wall_seconds"]
        assert figures["requests"] == 2 and 0.05 < figures["peak_gigabytes"] < 50
    # The same requests with the same seeds say the same, however many at once.
    assert one["audio_seconds"] == two["audio_seconds"]
    assert "published, RTX 4090: VoxCPM2 (PyTorch) | 0.30" in capsys.readouterr().out
    assert voxmill([*arguments, "--concurrency", "0"]) == 2 and voxmill([*arguments, "--concurrency", "x"]) == 2
    assert "voxmill evaluate efficiency: --concurrency x: write whole numbers" in capsys.readouterr().err
