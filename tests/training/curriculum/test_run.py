"""Runs of the script: exact after a kill, in any world and ZeRO stage, and what comes out is a released checkpoint."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_checkpoint
from model.config import read_config
from samples.fabricate import CHECKPOINT
from tests.support.runs import STEPS, arguments, figures, metrics, stop, train
from training.curriculum.corpus import read_corpus
from training.curriculum.export import export_checkpoint
from training.curriculum.loop import Run
from training.curriculum.plan.check import check
from training.curriculum.recipe import load_recipe
from training.run.stop_signal import StopSignal
from training.run.world import World
from voxmill.cli.app import run as command_line
from voxmill.core.errors import UserError
from voxmill.core.machine.lease import Lease
from voxmill.core.sharded_tensors import ShardedTensors, index_text


@pytest.fixture(scope="module")
def whole(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("run") / "out"
    train(encoded, out)
    return out


def test_a_run_learns_and_its_export_is_a_released_checkpoint(whole: Path) -> None:
    losses = [line["loss"] for line in metrics(whole)]
    assert len(losses) == STEPS and losses[-1] < 0.7 * losses[0]
    trained, before = load_checkpoint(whole / "export"), load_checkpoint(CHECKPOINT)
    changed = [n for n, w in trained.model.state_dict().items() if not w.equal(before.model.state_dict()[n])]
    assert len(changed) > 50
    line = metrics(whole)[-1]
    assert line["unreadable"] == line["quarantined"] == 0 and line["audio_seconds_per_second"] > 0
    assert {name for name in line["shares"] if name.startswith("mode/")} == {
        f"mode/{mode}" for mode in ("basic", "continuation", "design", "reference", "controllable")
    }


def test_checkpoints_are_exported_by_step(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing in the run's folder is a relative path
    assert command_line(["export-checkpoint", str(whole), "-o", "newest"]) == 0
    newest, export = (load_file(folder / "model.safetensors") for folder in (Path("newest"), whole / "export"))
    assert all(torch.equal(newest[name], export[name]) for name in export)
    assert capsys.readouterr().out == "newest\n"
    assert command_line(["export-checkpoint", str(whole), "--step", "6"]) == 0
    earlier = load_checkpoint(whole / "export-step-00000006").model.state_dict()
    assert not all(torch.equal(earlier[name], export[name]) for name in export)
    for words_given, message in (
        ([str(whole), "--step", "5"], "no whole checkpoint of step 5; there are: "),
        ([str(whole), "-o", "newest"], "newest: is not empty"),
        ([str(tmp_path)], "has no recipe.json; name the run.out"),
    ):
        assert command_line(["export-checkpoint", *words_given]) == 2
        assert message in capsys.readouterr().err


def test_a_checkpoint_of_a_run_is_read_as_what_it_is_exported_to(whole: Path, tmp_path: Path) -> None:
    (exported,) = export_checkpoint(whole, tmp_path / "exported", 6)
    checkpoint = whole / "checkpoints" / "step-00000006"
    found, wanted = load_checkpoint(checkpoint), load_checkpoint(exported)
    for ours, theirs in ((found.model, wanted.model), (found.vae, wanted.vae)):
        expected = theirs.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())
    assert (found.config, found.tokenizer.size) == (wanted.config, wanted.tokenizer.size)
    alone = Path(shutil.copytree(checkpoint, tmp_path / "alone" / checkpoint.name))
    with pytest.raises(UserError, match=r"whose .*recipe.json cannot be read .*voxmill export-checkpoint"):
        load_checkpoint(alone)


def test_a_run_begins_from_a_checkpoint_of_another(encoded: Path, whole: Path, world: World, tmp_path: Path) -> None:
    init = whole / "checkpoints" / "step-00000006"
    name, *overrides = arguments(encoded, tmp_path / "out", "run.tracking_uri=none", f"init={init}", "steps=2")
    recipe = load_recipe(name, overrides)
    run = Run(recipe, check(recipe)[0], world, StopSignal())
    started = {name: values["weight"] for name, values in run.engine.state.tensors(["weight"])}
    assert all(torch.equal(started[name], tensor) for name, tensor in ShardedTensors(init).whole("weight"))
    assert run() == 0 and load_checkpoint(tmp_path / "out" / "export").config == load_checkpoint(init).config
    # And another one from that, whose configuration, tokenizer and codec are those of the first.
    assert read_config(tmp_path / "out" / "checkpoints" / "step-00000002") == read_config(CHECKPOINT)


def test_adapters_alone_are_no_init(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / "tensors.json").write_text(index_text(["weight"], {}))
    (tmp_path / "recipe.json").write_text(json.dumps({"init": str(CHECKPOINT), "lora": {"r": 8}}))
    with pytest.raises(UserError, match=r"holds adapters alone; name the merged folder .* run.merged=true"):
        load_checkpoint(folder)
    (tmp_path / "recipe.json").write_text(json.dumps({"init": str(folder), "lora": None}))
    with pytest.raises(UserError, match="name each other as init"):
        load_checkpoint(folder)


def test_a_second_run_in_the_same_folder_is_refused(
    encoded: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Lease(tmp_path / "lease.json", str(tmp_path)):
        assert command_line(["train", *arguments(encoded, tmp_path, "run.tracking_uri=none")]) == 2
    assert f"another job writes to {tmp_path} now: process" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


def test_every_step_is_reported_by_mode_language_and_source(whole: Path) -> None:
    for line in metrics(whole):
        assert {"stop_recall", "data_seconds", "learning_rate", "teraflops", "positions_per_second"} <= set(line)
        assert "mfu" not in line  # no peak is known of a CPU
        for kind in ("mode", "language", "source"):
            mine = [sums for name, sums in line["losses"].items() if name.startswith(f"{kind}/")]
            patches = sum(sums["patches"] for sums in mine)
            assert patches == line["target_patches"]
            for loss in ("loss", "diffusion", "stop"):
                mean = sum(sums[loss] * sums["patches"] for sums in mine) / patches
                assert mean == pytest.approx(line[loss], rel=1e-5)


def test_a_run_that_is_killed_and_then_stopped_resumes_with_the_same_losses(
    encoded: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert stop(encoded, out, after=3, how=signal.SIGKILL) == -9
    assert 3 <= (killed := len(metrics(out))) < STEPS
    # What the killed run had not saved is done again, so that the signal comes after a step of the second run.
    assert stop(encoded, out, after=killed + 1, how=signal.SIGTERM) == 75
    assert killed < len(metrics(out)) < STEPS
    assert "resuming from" in train(encoded, out)
    assert figures(out) == figures(whole)
    assert not list((out / "checkpoints").glob(".step*"))


def test_a_checkpoint_altered_by_one_byte_is_named_and_the_one_before_is_used(
    encoded: Path, whole: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    newest = max((out / "checkpoints").glob("step-*"))
    weights = newest / "rank-00000.safetensors"
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(content)
    said = train(encoded, out)
    assert f"{newest}: rank-00000.safetensors was altered" in said and "resuming from" in said
    assert newest.name not in said.partition("resuming from")[2].partition("\n")[0]
    assert figures(out) == figures(whole)


def test_another_recipe_is_refused_in_one_line(encoded: Path, whole: Path, world: World) -> None:
    name, *overrides = arguments(encoded, whole, "run.tracking_uri=none", "seed=5")
    recipe = load_recipe(name, overrides)
    with pytest.raises(UserError, match="seed: 0 -> 5"):
        Run(recipe, read_corpus(recipe), world, StopSignal())()


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_the_loss_sequence_is_the_same_when_ranks_change(encoded: Path, tmp_path: Path, zero: int) -> None:
    """2 → 1 → 4 ranks with kills between. AdamW divides small gradients by their own size, which makes rounding large;
    a large eps keeps it small, so that the comparison is not of noise."""
    same = ("optimizer.eps=0.001", f"engine.zero={zero}", "optimizer.ema=0.9")
    reference, out = tmp_path / "reference", tmp_path / "out"
    train(encoded, reference, *same, world=1)
    stop(encoded, out, *same, after=3, how=signal.SIGKILL, world=2)
    stop(encoded, out, *same, after=5, how=signal.SIGKILL, world=1)
    train(encoded, out, *same, world=4)
    found, wanted = figures(out), figures(reference)
    assert [line[0] for line in found] == list(range(STEPS))
    assert [line[3] for line in found] == [line[3] for line in wanted]
    assert [line[1] for line in found] == pytest.approx([line[1] for line in wanted], rel=2e-6)
    assert [line[2] for line in found] == pytest.approx([line[2] for line in wanted], rel=2e-5)
    ours, theirs = (
        dict(ShardedTensors(max((run / "checkpoints").glob("step-*"))).whole("ema")) for run in (out, reference)
    )
    assert len(ours) > 50
    for name, average in ours.items():
        torch.testing.assert_close(average, theirs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("change", [(0, 3), (3, 1), (2, 3)])
def test_a_run_resumes_under_another_zero_stage(
    encoded: Path, whole: Path, tmp_path: Path, change: tuple[int, int]
) -> None:
    out, eps = tmp_path / "out", "optimizer.eps=0.001"
    train(encoded, tmp_path / "reference", eps)
    stop(encoded, out, eps, f"engine.zero={change[0]}", after=3, how=signal.SIGKILL)
    train(encoded, out, eps, f"engine.zero={change[1]}")
    wanted = [line[1] for line in figures(tmp_path / "reference")]
    assert [line[1] for line in figures(out)] == pytest.approx(wanted, rel=2e-6)


@pytest.mark.slow
def test_mlflow_has_one_run_of_a_run_that_was_killed(encoded: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    out, mlflow = tmp_path / "out", "run.tracking_uri=null"
    checked = ("validation={every: 4, share: 0.2, count: 2, listen: 1, max_seconds: 4}", "run.peak_tflops=0.05")
    stop(encoded, out, mlflow, *checked, after=3, how=signal.SIGKILL)
    said = train(encoded, out, mlflow, *checked)
    assert "resuming from" in said and "held-out loss" in said and "MFU" in said
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "voxcpm2"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["stage"] == "2"
    lines = metrics(out)
    history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")}
    assert history == {line["step"]: line["loss"] for line in lines}
    last = lines[-1]
    assert run.data.metrics["losses/mode/basic/loss"] == pytest.approx(last["losses"]["mode/basic"]["loss"])
    assert run.data.metrics["shares/mode/basic/wanted"] == pytest.approx(last["shares"]["mode/basic"]["wanted"])
    assert run.data.metrics["validation/loss"] == last["validation"]["loss"]
    flops = last["teraflops"] / last["positions"] * last["positions_per_second"]
    assert last["mfu"] == pytest.approx(flops / 0.05, rel=1e-6)
    names = {Path(item.path).name for item in client.list_artifacts(run.info.run_id, f"media/{STEPS:08d}")}
    assert {"0-basic-made.wav", "0-basic-mel.png"} <= names
