"""The command line: what it imports, how it helps, and every mistake answered in one line with status 2."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from voxmill.cli.app import run
from voxmill.cli.settings import is_override, split_settings
from voxmill.core.errors import ExitStatus, UserError

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = (
    "annotate",
    "finish",
    "encode",
    "index",
    "train",
    "train-vae",
    "generate",
    "report",
    "export",
    "fetch",
    "doctor",
)
GROUPS = ("evaluate", "evaluate benchmark", "evaluate reconstruction", "evaluate efficiency")
LISTENING = ("listening", "listening build", "listening read")
PLANS = ("plan", "plan data", "plan train")
CLUSTER = ("cluster", "cluster render")
SCRIPTS = {
    "pipelines/annotate.py": "annotate",
    "pipelines/encode.py": "encode",
    "training/train.py": "train",
    "training/train_vae.py": "train-vae",
    "evaluation/evaluate.py": "evaluate",
    "evaluation/metrics/efficiency.py": "evaluate efficiency",
}


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that the command answers with; its exit status is 2."""
    capsys.readouterr()
    assert run(words) == ExitStatus.USER_ERROR
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and output.err.startswith("voxmill") and not output.out, output
    return output.err.strip()


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'transformers', 'numpy', 'pyarrow', 'pydantic', 'pipelines', 'training', 'evaluation'}"
    check = f"import sys, voxmill.cli.app; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS, *LISTENING, *PLANS, *CLUSTER])
def test_help_has_an_example_and_the_exit_statuses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--help"]) == ExitStatus.DONE
    text = capsys.readouterr().out
    assert f"Usage: voxmill {name}" in text and "Example" in text
    assert f"  voxmill {name.removesuffix(' benchmark')}" in text
    statuses = " ".join(text.partition("Exit status: ")[2].split())
    assert all(f"{number} " in statuses for number in (0, 1, 2, 130))


def test_help_of_voxmill_and_of_training_names_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["train", "-h"]):
        assert run(words) == ExitStatus.DONE
        statuses = " ".join(capsys.readouterr().out.partition("Exit status: ")[2].split())
        assert all(f"{int(status)} " in statuses for status in ExitStatus)


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == ExitStatus.USER_ERROR
    assert "annotate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("annotate", "select.min_dnsmos_ovr=2.0"),
        ("encode", "batch_seconds=120.0"),
        ("train", "optimizer.learning_rate "),
        ("train", "num_workers "),
        ("train-vae", "rows=16"),
        ("evaluate", "scoring.recognition.model=embedded"),
        ("export", "max_seconds=30.0"),
        ("cluster render", "workers.NAME.gpus=0"),
    ],
)
def test_keys_are_printed(name: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--keys"]) == ExitStatus.DONE
    assert any(line.startswith(key) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["annotat"], "voxmill: no such command 'annotat'; did you mean 'annotate'?; see voxmill --help"),
        (["nothing"], "voxmill: no such command 'nothing'; see voxmill --help"),
        (["evaluate", "reconstruct"], "no such command 'reconstruct'; did you mean 'reconstruction'?"),
        (
            ["annotate", "--wrong", "in", "out"],
            "voxmill annotate: no such option: --wrong; see voxmill annotate --help",
        ),
        (["generate", "--chekpoint", "x"], "no such option: --chekpoint; did you mean --checkpoint?"),
        (["annotate"], "voxmill annotate: missing argument 'IN'"),
        (["annotate", "in"], "voxmill annotate: missing argument 'OUT'"),
        (["annotate", "in", "out", "--shard", "4/4"], "--shard 4/4: write I/N, such as 0/64 for the first of 64"),
        (["annotate", "in", "out", "--shard", "one"], "--shard one: write I/N"),
        (["annotate", "-in", "out"], "a path that begins with - is written ./-path"),
        (["encode", "dataset"], "voxmill encode: missing option '--vae'"),
        (["encode", "--vae"], "voxmill encode: option '--vae' requires an argument"),
        (["train"], "missing argument 'RECIPE'"),
        (["train-vae", "data"], "missing argument 'OUT'"),
        (["plan", "--gpus", "many"], "voxmill plan train: invalid value for '--gpus': "),
        (["plan", "--gpus", "0"], "voxmill plan train: --gpus 0: must be more than 0"),
        (["listening"], "voxmill listening: missing command"),
        (["report", "nowhere"], "voxmill report: nowhere: no run.json there"),
        (["export", "nowhere"], "missing argument 'FOLDER'"),
        (["evaluate", "benchmark"], "no benchmark; name one"),
        (["evaluate", "efficiency", "ckpt", "texts", "--concurrency", "x"], "write whole numbers"),
    ],
)
def test_a_wrong_command_line_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in mistake(capsys, *words)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("select.min_seconds=", "no value; write select.min_seconds=null"),
        ("=3", "'=3' has no key; write key=value"),
        ("select.min_second=3", "did you mean 'select.min_seconds'"),
        ("nothing.like.it=3", "unknown key 'nothing'"),
        ("run.workers.number=3", "run.workers holds a value, not a section"),
        ("run.workers=[1, 2]", "run.workers = [1, 2]: "),
        ("run.workers={a: 1}", "run.workers = {'a': 1}: "),
        ("run={", "not valid YAML"),
        ("run=3", "run is a section"),
        ("select.min_seconds=soon", "select.min_seconds = 'soon'"),
        ("recipe with spaces.yaml", "cannot be read (No such file or directory)"),
        ("out/lang=en", "cannot be read (No such file or directory)"),
        ("--workers=3", "no such option: --workers"),
    ],
)
def test_a_wrong_setting_is_one_line(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("recordings", "dataset"):
        (tmp_path / name).mkdir()
    line = mistake(capsys, "annotate", str(tmp_path / "recordings"), str(tmp_path / "dataset"), setting)
    assert line.startswith("voxmill annotate: ") and message in line


def test_a_recipe_that_is_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "list.yaml").write_text("- a\n")
    places = (str(tmp_path / "in"), str(tmp_path / "out"))
    assert "Is a directory" in mistake(capsys, "annotate", *places, str(tmp_path))
    assert "not valid YAML" in mistake(capsys, "annotate", *places, str(tmp_path / "binary.yaml"))
    assert "key: value" in mistake(capsys, "annotate", *places, str(tmp_path / "list.yaml"))
    assert "no such recipe" in mistake(capsys, "train-vae", *places, str(tmp_path))
    assert "no such recipe" in mistake(capsys, "train", str(tmp_path))
    two = mistake(capsys, "annotate", *places, "one.yaml", "two.yaml")
    assert "'two.yaml' is one argument too many" in two
    assert "'extra' is one argument too many" in mistake(capsys, "train", "stage1", "extra")
    assert "no such recipe" in mistake(capsys, "train", "init=here")


@pytest.mark.parametrize("command", ["annotate", "train-vae"])
def test_folders_that_cannot_be_read_and_written_at_once(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, file = tmp_path / "in with spaces", tmp_path / "file"
    source.mkdir()
    file.write_text("")
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / ".." / source.name, tmp_path / "link"):
        assert "name another folder for OUT" in mistake(capsys, command, str(source), str(out))
    for out in (source / "out", tmp_path / "link" / "deep" / "out"):
        assert "OUT lies inside" in mistake(capsys, command, str(source), str(out))
    assert "is a file; OUT must be a folder" in mistake(capsys, command, str(source), str(file))


def test_the_folder_of_an_export_is_not_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert "FOLDER is OUT" in mistake(capsys, "export", str(tmp_path), f"{tmp_path}/.")
    assert "is a file; FOLDER must be a folder" in mistake(capsys, "export", str(tmp_path), str(file))


@pytest.mark.parametrize("name", ["lang=en", "out/lang=en", "run.workers=2", "-dash", "späß mit 你好", "with space"])
def test_positional_paths_are_paths_whatever_their_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command gets as far as finding nothing under the very name."""
    monkeypatch.chdir(tmp_path)
    for command in (["annotate", "--", name, "other"], ["encode", "--vae", "ckpt", "--", name]):
        assert name in mistake(capsys, *command)
    assert name in mistake(capsys, "train-vae", "--", name, "other")
    assert name in mistake(capsys, "export", "--", name, "other")
    Path(name).mkdir(parents=True)
    # An empty folder of that name is looked into, as IN and as OUT.
    assert name in mistake(capsys, "annotate", "--", name, "other")
    assert name in mistake(capsys, "train-vae", "--", name, "other")
    Path("in").mkdir()
    assert "in: no clip of" in mistake(capsys, "train-vae", "--", "in", name)


@pytest.mark.parametrize(
    "words",
    [
        ["annotate", "", "out"],
        ["annotate", "in", ""],
        ["encode", "", "--vae", "ckpt"],
        ["train", ""],
        ["train-vae", "data", ""],
        ["export", "out", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "is empty; name a file or folder" in mistake(capsys, *words)


def test_a_line_break_in_a_path_makes_no_second_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "two lines.yaml" in mistake(capsys, "annotate", str(tmp_path), str(tmp_path.parent), "two\nlines.yaml")


def test_words_after_the_positionals_are_overrides_or_one_recipe() -> None:
    assert split_settings(["a.yaml", "b.c=1", "d={e: f}"]) == ("a.yaml", ["b.c=1", "d={e: f}"])
    assert split_settings(["b=1", "out/lang=en.yaml"]) == ("out/lang=en.yaml", ["b=1"])
    assert split_settings(None) == (None, [])
    assert [is_override(word) for word in ("a=", "a.b-c=1", "datasets.main.path=x/lang=en")] == [True] * 3
    assert [is_override(word) for word in ("a/b=1", "=1", "1a=1", "-a=1", "a b=1", "a", "./a=1")] == [False] * 7
    with pytest.raises(UserError, match="one argument too many"):
        split_settings(["a.yaml"], recipe="")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_the_command(script: str, tmp_path: Path) -> None:
    """The same help and the same mistakes, from any working directory."""
    name = SCRIPTS[script]
    for words in (["--help"], ["--wrong"]):
        results = []
        for start in ([str(ROOT / script)], ["-m", "voxmill", *name.split()]):
            where = os.environ | {"PYTHONPATH": str(ROOT)}
            results.append(
                subprocess.run(
                    [sys.executable, *start, *words], capture_output=True, text=True, env=where, cwd=tmp_path
                )
            )
        by_path, by_name = results
        assert (by_path.returncode, by_path.stdout, by_path.stderr) == (
            by_name.returncode,
            by_name.stdout,
            by_name.stderr,
        )
        assert by_path.returncode == (0 if words == ["--help"] else 2)


def test_the_rank_that_deepspeed_appends_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such recipe" in mistake(capsys, "train", "--local_rank=3", "nothing", "rows=4")
    assert run(["train", "--help"]) == 0 and "local_rank" not in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_traceback() -> None:
    command = f"{shlex.quote(sys.executable)} -m voxmill annotate --keys | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["annotate", "in", "ftp://host/out"], "unknown scheme 'ftp'"),
        (["annotate", "s3:/bucket/in", "out"], "a URI has two slashes"),
        (["encode", "s3://", "--vae", "v"], "names no bucket"),
        (["report", "http://host/dataset"], "unknown scheme 'http'"),
        (["export", "out", "s3:/bucket/folder"], "a URI has two slashes"),
        (["train-vae", "in", "s3:/bucket/out"], "a URI has two slashes"),
        (["evaluate", "texts:a.jsonl", "--system", "a=wavs:b", "-o", "s3:/bucket/out"], "two slashes"),
        (["evaluate", "reconstruction", "--checkpoint", "c", "--data", "d", "-o", "gopher://x"], "unknown scheme"),
        (["generate", "--checkpoint", "s3://b/c", "-o", "x.wav"], "is in object storage"),
        (["listening", "build", "scores", "s3://bucket/session"], "is in object storage"),
        (["train", "stage1", "init=s3://", "datasets.main.path=d", "run.out=r"], "names no bucket"),
        (["train", "stage1", "init=v", "datasets.main.path=ftp://x/y", "run.out=r"], "unknown scheme 'ftp'"),
    ],
)
def test_a_uri_that_cannot_be_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    # "s3:" as a folder is what pathlib would make of it.
    assert not list(tmp_path.iterdir())
