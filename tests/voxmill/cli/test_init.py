"""`voxmill init` makes what stage 1 starts from, and refuses what does not go together."""

from pathlib import Path

import pytest

from model.checkpoint import load_checkpoint
from tests.support.oracle import read_oracle
from voxmill.cli.app import run


def test_a_checkpoint_of_a_codec_alone_loads_and_its_parts_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = str(read_oracle().checkpoint)
    assert run(["init", str(tmp_path / "first"), "--vae", codec, "--preset", "tiny", "--dtype", "bfloat16"]) == 0
    assert load_checkpoint(tmp_path / "first").config.dtype == "bfloat16"
    printed = capsys.readouterr().out
    assert "base_lm" in printed and "fresh, seed 0" in printed and f"tokenizer: {codec}" in printed
    assert run(["init", str(tmp_path / "first"), "--vae", codec, "--preset", "tiny"]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--texts", "dataset", "--tokenizer", "other"], "leave one of them out"),
        (["--texts", "dataset", "--language-model", "minicpm"], "leave one of them out"),
        (["--dtype", "int8"], "'int8' is not one of"),
        (["--preset", "huge"], "'huge' is not a preset"),
        (["--language-model", "nowhere"], "config.json: cannot be read"),
        (["--texts", "nowhere"], "name the OUT of a finished"),
        (["--tokenizer", "nowhere"], "tokenizer.json: no such file"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", "first", "--vae", str(read_oracle().checkpoint), *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not (tmp_path / "first").exists()
