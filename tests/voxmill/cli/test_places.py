"""Every command that takes paths, given URIs: none makes a local folder `s3:`, and unknown schemes are one line."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.support.s3_server import BUCKET, s3_server
from voxmill.cli.app import app, run

# {} stands for the start of a URI. Each line has every path of its command as one.
COMMANDS = {
    "annotate": ["annotate {}/in {}/out {}/recipe.yaml", "annotate {}/in.jsonl {}/out --shard 0/2"],
    "finish": ["finish {}/in {}/out"],
    "encode": ["encode {}/dataset --vae {}/checkpoint {}/recipe.yaml", "encode {}/dataset --vae {}/checkpoint"],
    "init": ["init {}/first --vae {}/vae --language-model {}/minicpm", "init {}/first --vae {}/vae --texts {}/dataset"],
    "train": [
        "train {}/recipe.yaml",
        "train stage1 init={}/init datasets.main.path={}/dataset run.out={}/out tracking.mlflow=false",
        "train --check finetune_lora init={}/init datasets.main.path={}/dataset run.out={}/out",
    ],
    "index": [
        "index {}/recipe.yaml -o {}/index",
        "index stage1 -o {}/index init={}/init datasets.main.path={}/dataset run.out={}/out",
        "index stage1 init={}/init datasets.main.path={}/dataset run.out={}/out run.index={}/index",
    ],
    "export-checkpoint": ["export-checkpoint {}/run -o {}/out", "export-checkpoint {}/run"],
    "train-vae": ["train-vae {}/dataset {}/out", "train-vae {}/dataset {}/out {}/recipe.yaml"],
    "generate": [
        "generate --checkpoint {}/checkpoint --text Hello. -o {}/a.wav --reference {}/r.wav --lora {}/lora",
        "generate --checkpoint {}/checkpoint --requests {}/r.jsonl -o {}/speech",
        "generate --checkpoint {}/checkpoint --text Hello. --prompt {}/p.wav --prompt-text Hi. -o {}/a.wav",
    ],
    "evaluate benchmark": [
        "evaluate texts:{}/list.jsonl --system a=wavs:{}/wavs -o {}/scores",
        "evaluate texts:{}/list.jsonl --system a=checkpoint:{}/checkpoint -o {}/scores",
    ],
    "evaluate reconstruction": ["evaluate reconstruction --checkpoint {}/vae --data {}/dataset -o {}/out"],
    "evaluate efficiency": ["evaluate efficiency {}/checkpoint {}/texts.jsonl -o {}/out.json"],
    "listening build": ["listening build {}/scores {}/session"],
    "listening read": ["listening read {}/session {}/answers"],
    "report": ["report {}/dataset"],
    "export": ["export {}/dataset {}/folder", "export {}/dataset {}/folder --as hf"],
    "compact": ["compact {}/dataset"],
    "fit-trust": ["fit-trust {}/dataset {}/truth.jsonl -o {}/fit.json"],
    "vacuum": ["vacuum {}/dataset"],
    "cluster render": ["cluster render {}/values.yaml -o {}/files", "cluster render -o {}/files"],
    "plan data": ["plan --audio-hours 10 --gpus 8 --rates {}/rates.json"],
    "plan train": ["plan {}/checkpoint --gpus 8"],
}
WITHOUT_PATHS = {"fetch", "doctor"}
LINES = [line for lines in COMMANDS.values() for line in lines]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


def names(command: object, above: str = "") -> Iterator[str]:
    """Every command without subcommands, as it is called."""
    commands: dict[str, object] = getattr(command, "commands", {})
    if not commands:
        yield above
    for name, one in commands.items():
        yield from names(one, f"{above} {name}".strip())


def test_all_commands_are_here() -> None:
    assert set(names(typer.main.get_command(app))) == COMMANDS.keys() | WITHOUT_PATHS


@pytest.mark.parametrize("line", LINES)
def test_no_command_makes_a_local_folder_of_a_uri(
    server: None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    status = run(line.replace("{}", f"s3://{BUCKET}/{tmp_path.name}").split())
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1, lines
    assert "s3:/" not in lines[0].replace("s3://", ""), lines
    assert not os.listdir(tmp_path / "here")


@pytest.mark.parametrize("line", LINES)
def test_unknown_schemes_are_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(line.replace("{}", "foo://bucket/x").split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "unknown scheme 'foo'" in lines[0], lines
    assert not os.listdir(tmp_path)
