"""The guide's commands and the image: what they name exists, and the image's steps work for its user."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.manifests.job_commands import check_command

ROOT = Path(__file__).resolve().parents[2]
USER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One instruction of a Dockerfile, continuation lines joined."""

    name: str
    text: str


def steps() -> list[Step]:
    """Every instruction of the image, in order."""
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    return [Step(name=line.split(None, 1)[0], text=line.split(None, 1)[1]) for line in lines if line.strip()]


def test_the_commands_in_the_guide_are_ours() -> None:
    lines = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", " ").splitlines()
    commands = [line.split(" -- ", 1)[1] for line in lines if "ray job submit" in line and " -- " in line]
    assert len(commands) >= 2
    for line in commands:
        check_command(line)


def test_nothing_is_installed_by_root() -> None:
    user = next(n for n, step in enumerate(steps()) if step.name == "USER")
    assert steps()[user].text == str(USER)
    for n, step in enumerate(steps()):
        if step.name == "COPY":
            assert step.text.startswith(f"--chown={USER}:{USER} ")
        if "pip install" in step.text or "voxmill" in step.text and step.name == "RUN":
            assert n > user or "useradd" in step.text


def test_both_builds_install_the_versions_that_were_tried() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    torch = re.search(r"^torch==([\d.]+)(\+cpu)$", constraints, re.MULTILINE)
    assert torch is not None, "the Dockerfile takes the suffix away"
    assert re.search(r"^nvidia-cublas-cu12==12\.", constraints, re.MULTILINE)
    installs = [step.text for step in steps() if "pip install" in step.text]
    assert len(installs) == 2 and all("constraints.txt" in text for text in installs)


def test_ctranslate2_still_wants_cublas_12_and_no_cudnn() -> None:
    """What the image provides, by the names that CTranslate2 looks for: another version may want others."""
    import ctranslate2

    folder = Path(ctranslate2.__file__).parents[1] / "ctranslate2.libs"
    (library,) = folder.glob("libctranslate2-*.so*")
    content = library.read_bytes()
    assert set(re.findall(rb"libcublas\.so\.(\d+)", content)) == {b"12"}
    assert b"libcudnn" not in content


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_the_steps_work_in_a_fresh_environment_of_the_images_user() -> None:
    """The CPU build without Docker: every step after `USER`, with the image's folders under a temporary one."""
    root = Path(tempfile.mkdtemp(prefix="voxmill-image-"))
    try:
        home, source = root / "ray", root / "voxmill"
        for folder in (root, home, source):
            folder.mkdir(exist_ok=True)
            os.chown(folder, USER, USER)
        env = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "LANG", "SSL_"))}
        # Where the machine's own index has PyTorch's CPU build, no other is needed.
        env |= {"HOME": str(home), "COMPUTE": "cpu", "CPU_INDEX": os.environ.get("CPU_INDEX", "")}
        # A Python 3.11 that this user may run; root's own often lies in root's home.
        python = os.environ.get("IMAGE_PYTHON", sys.base_prefix)
        env["PATH"] = f"{python}/bin:/usr/local/bin:/usr/bin:/bin"
        instructions = steps()
        user = next(n for n, step in enumerate(instructions) if step.name == "USER")
        for step in instructions[user + 1 :]:
            text = step.text.replace("/opt/ray", str(home)).replace("/opt/voxmill", str(source))
            if step.name == "ENV":
                for word in text.split():
                    name, _, value = word.partition("=")
                    env[name] = value.replace("$PATH", env["PATH"])
            elif step.name == "COPY":
                copy_tracked_files(source, only=text.split()[1])
            else:
                assert step.name == "RUN"
                done = subprocess.run(
                    ["/bin/sh", "-c", text], cwd=source, env=env, user=USER, group=USER, extra_groups=[],
                    capture_output=True, text=True,
                )  # fmt: skip
                assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert "words of 30 s" in done.stdout
        login = subprocess.run(
            ["/bin/bash", "--login", "-c", "command -v ray python voxmill"],
            cwd=source, env=env | {"PATH": "/usr/bin:/bin"}, user=USER, group=USER, extra_groups=[],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert [Path(line).parent for line in login.stdout.split()] == [home / "venv" / "bin"] * 3
    finally:
        shutil.rmtree(root)


def copy_tracked_files(target: Path, only: str) -> None:
    """What `COPY` takes: one file, or the whole checkout for `.`."""
    listed = subprocess.run(["git", "ls-files", "-z", only], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.rstrip("\0").split("\0"):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, path)
    for path in [target, *target.rglob("*")]:
        os.chown(path, USER, USER)
