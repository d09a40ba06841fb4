"""Scripts for SLURM: options before the first command, requeue at the time limit, each job after the one before it.

They run under bash with SLURM's variables set; SLURM's own commands (sbatch, scontrol) are small scripts that write
down how they are called. docs/log.md has a run of the same scripts under a SLURM of one node.
"""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.manifests.render import DEFAULT_VALUES, write_files
from cluster.manifests.slurm import slurm_files
from cluster.manifests.values import Values
from tests.cluster.manifests.job_commands import check_command
from voxmill.core.config import load_config

ROOT = Path(__file__).resolve().parents[3]
RAY = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH")
SCRIPTS = ("slurm_annotate.sbatch", "slurm_finish.sbatch", "slurm_encode.sbatch", "slurm_train.sbatch")
RECORDER = """#!{python}
import os, sys
with open({log!r}, "a") as log:
    print(os.path.basename(sys.argv[0]), *sys.argv[1:], file=log)
if sys.argv[0].endswith("sbatch"):
    print(100 + sum(1 for line in open({log!r}) if line.startswith("sbatch")))
if sys.argv[1:2] == ["show"]:
    print("node1")
"""


class Desk:
    """A folder with rendered scripts, and with commands of SLURM that are written down."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder, self.log = folder, folder / "calls.txt"
        write_files(load_config(Values, DEFAULT_VALUES, list(overrides)), folder)
        commands = folder / "bin"
        commands.mkdir()
        for name in ("sbatch", "scontrol"):
            (commands / name).write_text(RECORDER.format(python=sys.executable, log=str(self.log)))
            (commands / name).chmod(0o755)
        self.env = os.environ | {
            "PATH": f"{commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_JOB_NODELIST": "node1",
        }
        self.log.touch()

    def run(self, name: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", name], cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=60
        )

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


def stand_in(folder: Path, text: str) -> str:
    """The override that runs a Python program in voxmill's place."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stand_in.py"
    path.write_text(text)
    return f"slurm.command={shlex.quote(sys.executable)} {shlex.quote(str(path))}"


@pytest.mark.parametrize("name", [*SCRIPTS, "slurm_submit.sh"])
def test_bash_takes_the_scripts(name: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, "slurm.setup=['module load cuda', 'source \"my venv/bin/activate\"']", "dataset=/data/it's")
    done = subprocess.run(["bash", "-n", name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    text = (desk.folder / name).read_text()
    assert text.startswith("#!/bin/bash\n")
    if name != "slurm_submit.sh":
        lines = text.splitlines()
        first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
        # SLURM reads its options only up to the first line that runs.
        assert all(not line.startswith("#SBATCH") for line in lines[first:])
        assert lines.index("module load cuda") == first


def test_options_are_those_of_the_values() -> None:
    files = slurm_files(load_config(Values, DEFAULT_VALUES, ["slurm.account=lab", "slurm.train.partition=h100"]))
    annotate, train = files["slurm_annotate.sbatch"], files["slurm_train.sbatch"]
    for line in ("--array=0-63%32", "--account=lab", "--signal=B:TERM@300", "--requeue", "--open-mode=append"):
        assert f"\n#SBATCH {line}\n" in annotate
    for line in ("--nodes=2", "--ntasks-per-node=8", "--cpus-per-task=8", "--gpus-per-node=8", "--partition=h100"):
        assert f"\n#SBATCH {line}\n" in train
    # To the ranks, not to the shell.
    assert "\n#SBATCH --signal=TERM@300\n" in train and "--array" not in train


def test_each_job_waits_for_the_one_before_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    done = desk.run("slurm_submit.sh")
    assert done.returncode == 0, done.stderr
    here = tmp_path.resolve()
    assert desk.calls == [
        f"sbatch --parsable {here}/slurm_annotate.sbatch",
        f"sbatch --parsable --dependency=afterok:101 --kill-on-invalid-dep=yes {here}/slurm_finish.sbatch",
    ]
    assert (tmp_path / "logs").is_dir()


def test_a_task_labels_its_share_in_a_ray_of_its_own(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "folder = pathlib.Path(os.environ['RAY_TMPDIR'])\n"
        "assert folder.is_dir() and os.environ['VOXMILL_SCRATCH'] == str(folder)\n"
        "print(folder, *sys.argv[1:])\n"
    )
    desk = Desk(tmp_path, stand_in(tmp_path, program), "recordings=/data/my recordings")
    done = desk.run("slurm_annotate.sbatch", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == 0, done.stderr
    folder, _, words = done.stdout.strip().partition(" ")
    assert words == "annotate /data/my recordings /data/dataset --shard 3/64"
    assert not Path(folder).exists() and desk.calls == []


@pytest.mark.parametrize(("status", "again"), [(0, False), (1, False), (2, False), (75, True)])
def test_a_stopped_task_is_put_back_and_a_failed_one_is_not(status: int, again: bool, tmp_path: Path) -> None:
    desk = Desk(tmp_path, stand_in(tmp_path, f"raise SystemExit({status})"))
    done = desk.run("slurm_annotate.sbatch", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == status
    assert desk.calls == (["scontrol requeue 7_3"] if again else [])


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("import time\nprint('up', flush=True)\ntime.sleep(60)", 143),
        (
            "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(75)))\n"
            "print('up', flush=True)\ntime.sleep(60)",
            75,
        ),
    ],
)
def test_at_its_time_limit_a_job_ends_the_command_and_is_put_back(program: str, status: int, tmp_path: Path) -> None:
    desk = Desk(tmp_path, stand_in(tmp_path, program))
    job = subprocess.Popen(
        ["bash", "slurm_finish.sbatch"], cwd=tmp_path, env=desk.env, stdout=subprocess.PIPE, text=True
    )
    assert job.stdout is not None and job.stdout.readline() == "up\n"
    started = time.monotonic()
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == status and time.monotonic() - started < 20
    assert desk.calls == ["scontrol requeue 7"]


def test_the_scripts_run_commands_that_we_take() -> None:
    for name, text in slurm_files(Values()).items():
        if name != "slurm_submit.sh":
            lines = [line.strip() for line in text.splitlines() if line.strip().startswith("voxmill ")]
            assert len(lines) == 1, name
            check_command(lines[0].removesuffix(" &").partition(" --shard ")[0])


@pytest.mark.slow
def test_tasks_and_the_job_after_them_make_the_dataset_of_one_job(tmp_path: Path) -> None:
    """Real recordings through the scripts, two tasks at once on one node, as SLURM would start them."""
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for name in ("en-1", "en-2", "fr-1", "es-1"):
        shutil.copy(ROOT / "samples" / "recordings" / f"{name}.flac", recordings)
    settings = ["run.workers=1", "write.buckets=4", "run.progress=false"]
    overrides = [f"recordings={recordings}", f"dataset={tmp_path / 'out'}", f"annotate.settings=[{','.join(settings)}]"]
    desk = Desk(tmp_path, *overrides, "slurm.shards=2")
    for name in RAY:
        desk.env.pop(name, None)
    ids = {"SLURM_ARRAY_JOB_ID": "7"}
    tasks = [
        subprocess.Popen(
            ["bash", "slurm_annotate.sbatch"],
            cwd=tmp_path,
            env=desk.env | ids | {"SLURM_ARRAY_TASK_ID": str(task)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for task in range(2)
    ]
    for task in tasks:
        output = task.communicate(timeout=900)[0]
        assert task.returncode == 0, output[-4000:]
    assert not (tmp_path / "out" / "clips.parquet").exists()
    done = subprocess.run(["bash", "slurm_finish.sbatch"], cwd=tmp_path, env=desk.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert desk.calls == []
    alone = [sys.executable, "-m", "voxmill", "annotate", str(recordings), str(tmp_path / "alone"), *settings]
    subprocess.run(alone, cwd=ROOT, env=desk.env, check=True, capture_output=True)
    assert data_bytes(tmp_path / "out") == data_bytes(tmp_path / "alone")


def data_bytes(out: Path) -> dict[str, str]:
    """Hashes of shards and indexes by name."""
    paths = [*out.glob("shards/**/*.tar"), *out.glob("*.parquet/*.parquet"), *out.glob("*.parquet")]
    hashes = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }
    assert len(hashes) > 3
    return hashes
