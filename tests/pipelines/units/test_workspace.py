"""OUT belongs to one configuration and one job at a time; every mistake is one line that names it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config import LabelConfig
from pipelines.units.workspace import claim
from voxmill.core.errors import UserError


def test_a_second_job_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom pipelines.config import LabelConfig\n"
        "from pipelines.units.workspace import claim\n"
        "with claim(Path(sys.argv[1]), LabelConfig()):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another job"), claim(tmp_path / "out", LabelConfig()):
        pass
    other.kill()
    other.wait()
    with claim(tmp_path / "out", LabelConfig()):
        pass


def test_the_difference_to_another_configuration_is_named(tmp_path: Path) -> None:
    with claim(tmp_path / "out", LabelConfig()):
        pass
    with pytest.raises(UserError, match="window_seconds"), claim(tmp_path / "out", LabelConfig(window_seconds=100)):
        pass


def test_foreign_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else"), claim(tmp_path / "foreign", LabelConfig()):
        pass
    with pytest.raises(UserError, match="is a file"), claim(tmp_path / "foreign" / "thesis.txt", LabelConfig()):
        pass
    assert (tmp_path / "foreign" / "thesis.txt").read_text() == "years of work"
