"""The benchmarks that train run from their first line to their JSON, on a few steps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from samples.fabricate import CHECKPOINT
from samples.released import is_installed

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(name: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(not is_installed(), reason="pip install --no-deps voxcpm==2.0.3")
def test_throughput_finds_a_ratio_for_both_ways_of_counting(tmp_path: Path) -> None:
    found = run("throughput", "--preset", "tiny", "--repeats", "1", "--steps", "1", "--out", str(tmp_path))
    assert found["ratio"] > found["ratio_first_epoch"] > 0 and found["ratio"] > found["ratio_without_vae"]
    rates = found["audio_seconds_a_second"] / found["audio_seconds_a_second_released"]
    assert found["ratio"] == pytest.approx(rates, rel=0.01)


def test_loader_finds_rates_of_all_readers(tmp_path: Path) -> None:
    pytest.importorskip("lhotse")
    found = run("loader", "--clips", "60", "--repeats", "1", "--folder", str(tmp_path))
    assert set(found) == {"voxmill", "webdataset", "lhotse"}
    assert all(side[key] > 0 for side in found.values() for key in ("cold", "warm", "resumed", "first_resumed"))


def test_curriculum_goes_through_three_stages_and_speaks(tmp_path: Path) -> None:
    found = run("curriculum", "--steps", "8", "--out", str(tmp_path / "out"))
    assert found["all_modes_fell"] and len(found["losses"]) == 5 and found["generated_seconds"] > 0
    assert all(len(stages) == 4 for stages in found["losses"].values())


def test_overfit_learns_and_reports_what_was_recognised(tmp_path: Path) -> None:
    found = run("overfit", "--vae", str(CHECKPOINT), "--steps", "40", "--out", str(tmp_path / "out"))
    assert found["diffusion_last"] < found["diffusion_first"]
    assert 0 <= found["wer_recording"] < 0.5 and {"wer_audiovae", "wer_teacher_forced", "wer_basic"} <= set(found)
    assert len(list((tmp_path / "out").glob("*-continuation.wav"))) == 1


def test_gpu_parts_run_and_one_that_fails_takes_no_other_with_it() -> None:
    """On the CPU, tiny and not compiled: processes, turns, both systems, agreement."""
    tiny = ["--device", "cpu", "--preset", "tiny", "--agreement-preset", "tiny", "--no-compile", "--no-released"]
    found = run("gpu", "generate", *tiny, "--sizes", "1", "2", "--patches", "4", "--repeats", "1")
    assert found["graphs_1"]["rtf"] > 0 and found["graphs_2"]["step_ms"] > 0
    agreement = found["agreement_graphs"]
    assert max(agreement["first"], agreement["again"], agreement["growing"]) < 1e-5
    assert max(agreement["attention_bf16"], agreement["attention_bf16_gradients"]) < 2e-2
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "generate", *tiny, "--sizes", "1", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1 and "batch_size" in found["graphs_0"]["error"] and found["graphs_1"]["rtf"] > 0
