"""The values file: every mistake is answered with the key, and nothing is rendered that cannot be."""

from pathlib import Path

import pytest
import yaml

from cluster.manifests.render import DEFAULT_VALUES, render, values_text, write_files
from cluster.manifests.values import Values
from voxmill.cli.app import run
from voxmill.core.config import load_config
from voxmill.core.errors import ExitStatus, UserError

ROOT = Path(__file__).resolve().parents[3]


def test_the_files_in_the_repository_are_what_the_defaults_give() -> None:
    made = render(Values()) | {"values.yaml": values_text(Values())}
    folder = ROOT / "cluster"
    there = {path.name for path in folder.iterdir() if path.suffix in (".yaml", ".sh", ".sbatch")}
    assert there == set(made)
    for name, text in made.items():
        assert (folder / name).read_text() == text, f"run: voxmill cluster render -o cluster/ ({name})"


def test_the_values_file_has_every_value_and_says_what_it_means() -> None:
    assert load_config(Values, DEFAULT_VALUES) == Values()
    text = values_text(Values())
    keys = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert len(keys) > 80 and len(comments) > 70


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head.cpu=3", "head.cpu=3: unknown key 'head.cpu'; did you mean 'head.cpus'?"),
        ("slurm.train.gpu=8", "unknown key 'slurm.train.gpu'; did you mean 'slurm.train.gpus'?"),
        ("workers.cpu.cpus=many", "workers.cpu.cpus = 'many'"),
        ("workers.cpu.object_store_gib=112", "leaves nothing of memory_gib = 112; take about a third"),
        ("annotate.groups={gpus: 1}", "annotate.groups names 'gpus'; the worker groups are cpu, spot, gpu, gpu-spot"),
        ("encode.groups={cpu: 9}", "encode.groups: 9 nodes of cpu, whose max_nodes is 8"),
        ("encode.groups={}", "encode.groups is empty"),
        ("train.group=cpu", "train.group = cpu: has no GPUs"),
        ("train.nodes=9", "train.group: 9 nodes of gpu, whose max_nodes is 8"),
        ("storage.claim=null", "write recordings = '/data/recordings' as a URI, such as s3://bucket/folder"),
        ("kuberay.grace_seconds=3", "kuberay.grace_seconds = 3"),
    ],
)
def test_a_wrong_value_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(Values, DEFAULT_VALUES, [override])
    assert message in str(caught.value) and "{'" not in str(caught.value)


def test_a_group_has_a_name_that_kubernetes_takes(tmp_path: Path) -> None:
    values = yaml.safe_load(DEFAULT_VALUES.read_text())
    values["workers"]["GPU_2"] = values["workers"]["gpu"]
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="GPU_2: a group's name has lower-case letters, digits and -"):
        load_config(Values, tmp_path / "values.yaml")


def test_the_command_writes_files_and_keeps_your_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my cluster"
    assert run(["cluster", "render", "-o", str(out), "image=example.com/mine:2"]) == ExitStatus.DONE
    assert "kuberay_train.yaml" in capsys.readouterr().out
    assert "image: example.com/mine:2" in (out / "values.yaml").read_text()
    mine = (out / "values.yaml").read_text().replace("dataset: /data/dataset", "dataset: /data/other  # mine")
    (out / "values.yaml").write_text(mine)
    assert run(["cluster", "render", str(out / "values.yaml"), "-o", str(out)]) == ExitStatus.DONE
    assert (out / "values.yaml").read_text() == mine
    for name in ("kuberay_annotate.yaml", "slurm_annotate.sbatch"):
        assert "/data/other" in (out / name).read_text()
    assert "example.com/mine:2" in (out / "ray_aws.yaml").read_text()


def test_files_are_rendered_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_files(Values(), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_mistakes_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for words, message in (
        (["-o", str(tmp_path / "file")], "is a file; FOLDER must be a folder"),
        ([str(tmp_path / "none.yaml"), "-o", str(tmp_path)], "cannot be read"),
        (["a.yaml", "b.yaml", "-o", str(tmp_path)], "one argument too many; give at most one values.yaml"),
    ):
        assert run(["cluster", "render", *words]) == ExitStatus.USER_ERROR
        assert message in capsys.readouterr().err
