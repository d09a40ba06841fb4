"""The examples run as a user would run them; the shell scripts are slow, the notebook is not."""

import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from samples.fabricate import CHECKPOINT, rows, write_dataset

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run_script(name: str, *arguments: object, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """A script of `examples/` with its arguments, from another folder than the checkout."""
    command = [str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd="/")


def test_the_notebook_runs_on_a_finished_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_dataset(tmp_path / "dataset", rows(clips_each=3))
    monkeypatch.setenv("VOXMILL_DATASET", str(dataset))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.reads((EXAMPLES / "notebooks" / "first_minutes.ipynb").read_text(), as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is stored without outputs"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES / "notebooks")}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("6 clips" in output.get("text", "") for output in shown)
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    assert any("<audio" in output.get("data", {}).get("text/html", "") for output in shown)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.sh")))
def test_scripts_parse_and_say_how_they_are_called(name: str) -> None:
    assert os.access(EXAMPLES / name, os.X_OK)
    subprocess.run(["bash", "-n", str(EXAMPLES / name)], check=True)
    head = (EXAMPLES / name).read_text().splitlines()
    assert any(line.startswith(f"#   examples/{name}") for line in head)


def test_finetuning_without_a_checkpoint_says_what_is_missing() -> None:
    done = run_script("finetune_lora.sh", timeout=60)
    assert done.returncode != 0 and "a checkpoint folder" in done.stderr


@pytest.mark.slow
def test_annotate_a_folder(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    shutil.copy(ROOT / "samples" / "recordings" / "en-1.flac", recordings)
    done = run_script("annotate_a_folder.sh", recordings, tmp_path / "dataset")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "languages: {'en':" in done.stdout and (tmp_path / "dataset" / "report.html").exists()


@pytest.mark.slow
def test_finetune_lora(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", rows(clips_each=4))
    done = run_script("finetune_lora.sh", CHECKPOINT, dataset, tmp_path / "run", "tiny_finetune_lora")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "evening.wav").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("espeak-ng") and shutil.which("flite")), reason="needs espeak-ng and flite")
def test_score_two_systems(tmp_path: Path) -> None:
    done = run_script("score_two_systems.sh", tmp_path / "scores")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "scores" / "report.html").exists()
