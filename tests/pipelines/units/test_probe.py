"""Nodes that run other code end a job before it does any work; the driver's file lasts as long as the driver."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.units.probe import probe
from samples.ray_nodes import Nodes, empty, ray_nodes
from voxmill.core.errors import JobError
from voxmill.core.local_ray import environment
from voxmill.core.storage import file_names

ROOT = Path(__file__).resolve().parents[3]
CHECK = """
import sys
from pathlib import Path
from pipelines.units.probe import check_nodes
from voxmill.core.errors import JobError
from voxmill.core.local_ray import join_ray
join_ray()
try:
    check_nodes(Path(sys.argv[1]))
    print("good")
except JobError as error:
    print(error)
"""
KILLED = """
import os, sys
from pathlib import Path
from pipelines.units.probe import probe
with probe(Path(sys.argv[1])) as made:
    made.path.with_name(f"{made.path.name}-01234567").write_text(made.content)
    os._exit(9)
"""


def test_files_of_a_killed_driver_go_with_the_next_one(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT).returncode == 9
    folder = tmp_path / "work" / "probes"
    assert len(file_names(folder)) == 2
    (folder / "another's").write_text("of a version that said nothing of its process")
    with probe(tmp_path) as made, probe(tmp_path) as other:
        made.check("here")
        assert file_names(folder) == {made.path.name, other.path.name, "another's"}
    assert file_names(folder) == {"another's"}


def test_other_versions_are_refused(tmp_path: Path) -> None:
    with probe(tmp_path) as shared:
        shared.check("n1")
        other = dataclasses.replace(shared, software=shared.software | {"torch": "1.0"})
        with pytest.raises(JobError, match=r"node n1 has torch 2\..*, the driver 1\.0; install the same on both"):
            other.check("n1")


def check(nodes: Nodes, out: Path) -> str:
    """What a driver on the head says of the nodes."""
    command = [sys.executable, "-c", CHECK, str(out)]
    env = environment() | {"RAY_ADDRESS": nodes.address}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.fixture
def mounts() -> None:
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are for root")


@pytest.mark.usefixtures("mounts")
@pytest.mark.slow
def test_a_node_with_other_code_is_named(tmp_path: Path) -> None:
    out, code = tmp_path / "out", tmp_path / "code"
    out.mkdir()
    shutil.copytree(ROOT / "annotation", code, ignore=shutil.ignore_patterns("__pycache__"))
    with open(code / "__init__.py", "a", encoding="utf-8") as file:
        file.write("# another version\n")
    with ray_nodes() as nodes:
        nodes.add()
        assert check(nodes, out) == "good"
        nodes.add(mount=f"mount --bind {code} {ROOT / 'annotation'}")
        line = check(nodes, out)
        assert line.startswith("node ") and " has voxmill " in line
        assert line.endswith("; install the same on both")
    assert not list((out / "work" / "probes").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("mounts")
def test_a_node_without_the_code_is_named(tmp_path: Path) -> None:
    with ray_nodes() as nodes:
        nodes.add(mount=empty(ROOT / "pipelines"))
        line = check(nodes, tmp_path)
    assert (
        line.startswith("node ") and " cannot run this voxmill (ModuleNotFoundError: No module named 'pipelines" in line
    )
