"""OUT belongs to one configuration and one job at a time; every mistake is one line that names it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config import LabelConfig
from pipelines.units.workspace import Workspace
from voxmill.core.config import Config
from voxmill.core.errors import UserError


class Space(Config):
    """An identity of a part of the workspace."""

    space: str


def test_a_second_job_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom pipelines.config import LabelConfig\n"
        "from pipelines.units.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).claim(LabelConfig()):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    workspace = Workspace(tmp_path / "out")
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another job"), workspace.claim(LabelConfig()):
        pass
    other.kill()
    other.wait()
    with workspace.claim(LabelConfig()):
        pass


def test_the_difference_to_another_configuration_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    with workspace.claim(LabelConfig()):
        pass
    with pytest.raises(UserError, match="window_seconds"), workspace.claim(LabelConfig(window_seconds=100)):
        pass


def test_foreign_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else"), Workspace(tmp_path / "foreign").claim(LabelConfig()):
        pass
    place = tmp_path / "foreign" / "thesis.txt"
    with pytest.raises(UserError, match="is a file"), Workspace(place).claim(LabelConfig()):
        pass
    assert place.read_text() == "years of work"


def test_a_part_is_claimed_beside_what_the_folder_holds_and_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").write_bytes(b"")
    workspace = Workspace(tmp_path, "latents")
    replaced: list[str] = []
    for space in ("one", "one", "two", "two"):
        with workspace.claim(Space(space=space), replace=lambda: replaced.append("index")):
            pass
    assert replaced == ["index"]
    other = workspace.claim(Space(space="three"), another="has other latents", advice="give another")
    with pytest.raises(UserError, match=r"has other latents \(space: 'two' -> 'three'\); give another"), other:
        pass


@pytest.mark.parametrize(("part", "mark"), [("", "label.json"), ("latents", "latents/space")])
def test_a_folder_of_an_older_version_is_answered_in_one_line(tmp_path: Path, part: str, mark: str) -> None:
    (tmp_path / "work" / mark).parent.mkdir(parents=True)
    (tmp_path / "work" / mark).write_text("{}")
    claim = Workspace(tmp_path, part).claim(Space(space="one"))
    with pytest.raises(UserError, match="older voxmill; start again in an empty OUT"), claim:
        pass
