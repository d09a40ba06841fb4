"""The guide's commands and the image: what they name exists."""

from pathlib import Path

from tests.cluster.manifests.job_commands import check_command

ROOT = Path(__file__).resolve().parents[2]


def test_the_commands_in_the_guide_are_ours() -> None:
    lines = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", " ").splitlines()
    commands = [line.split(" -- ", 1)[1] for line in lines if "ray job submit" in line and " -- " in line]
    assert len(commands) >= 2
    for line in commands:
        check_command(line)
