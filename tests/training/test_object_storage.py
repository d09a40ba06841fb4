"""Both trainers from and to object storage: the same losses as on this machine, after a kill, and nothing local."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.checkpoint import load_checkpoint
from samples.fabricate import CHECKPOINT, make_folder
from tests.support.runs import STEPS, figures, stop, train
from tests.support.s3_server import BUCKET, s3_server
from tests.training.codec.test_train_vae import numbers
from tests.training.codec.test_train_vae import run as train_codec
from training.curriculum.corpus import read_corpus
from training.curriculum.loop import Run
from training.curriculum.recipe import load_recipe
from training.run.checkpoint_files import damage
from training.run.stop_signal import StopSignal
from training.run.world import World
from voxmill.cli.app import run as voxmill
from voxmill.core.errors import ExitStatus
from voxmill.core.storage import file_names, to_path, uri


@pytest.fixture(scope="module")
def bucket() -> Iterator[Path]:
    with s3_server():
        yield to_path(f"s3://{BUCKET}/training")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def put(local: Path, remote: Path) -> Path:
    remote.fs.put(str(local), remote.path, recursive=True)  # type: ignore[attr-defined]
    return remote


def test_a_run_reads_and_writes_object_storage(
    encoded: Path, world: World, bucket: Path, scratch: Path, tmp_path: Path
) -> None:
    dataset, init, out = put(encoded, bucket / "quick"), put(CHECKPOINT, bucket / "quick-init"), bucket / "quick-run"
    start = [f"datasets.main.path={uri(dataset)}", f"init={uri(init)}", f"run.out={uri(out)}", "steps=2", "rows=1"]
    checked = "validation={every: 2, share: 0.2, count: 1, listen: 1}"
    recipe = load_recipe("tiny_finetune_full", [*start, "optimizer.warmup_steps=1", "run.keep=1", checked])
    assert Run(recipe, read_corpus(recipe), world, StopSignal())() == ExitStatus.DONE
    assert file_names(out) == {"checkpoints", "export", "media", "metrics.jsonl", "recipe.json"}
    assert file_names(out / "checkpoints") == {"step-00000002"} and not damage(out / "checkpoints" / "step-00000002")
    assert (
        len(file_names(out / "media" / "00000002")) == 3 and len((out / "metrics.jsonl").read_text().splitlines()) == 2
    )
    load_checkpoint(out / "export")


def test_an_index_in_object_storage_is_one_here(
    encoded: Path, bucket: Path, scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its columns are copied to this machine once; texts are read where they lie. A run keeps its own below run.out."""
    dataset, out = put(encoded, bucket / "indexed"), bucket / "indexed-run"
    start = [f"init={CHECKPOINT}", f"datasets.main.path={uri(dataset)}", f"run.out={uri(out)}"]
    recipe = load_recipe("tiny_stage2", start)
    made, local = (
        read_corpus(recipe, index="keep"),
        read_corpus(load_recipe("tiny_stage2", [*start, f"run.out={tmp_path}"])),
    )
    assert file_names(out / "index") == {made.folder.name} and "texts" in file_names(made.folder)
    clips = list(range(len(local)))[::-1]
    assert made.read_texts(clips) == local.read_texts(clips)
    assert all(a.equal(b) for a, b in zip(made.read_latents(clips), local.read_latents(clips), strict=True))
    copied = [path for path in scratch.glob("voxmill-copy-*/*.bin")]
    assert copied and not list(scratch.glob("voxmill-copy-*/**/texts.jsonl"))
    again = read_corpus(recipe, index="keep")
    assert again.folder == made.folder and [path for path in scratch.glob("voxmill-copy-*/*.bin")] == copied
    assert voxmill(["index", "tiny_stage2", *start, "-o", uri(out / "elsewhere")]) == 0
    explicit = load_recipe("tiny_stage2", [*start, f"run.index={uri(out / 'elsewhere')}"])
    assert "16 clips" in capsys.readouterr().out and len(read_corpus(explicit)) == len(made)


@pytest.mark.slow
def test_a_curriculum_run_resumes_after_a_kill(encoded: Path, bucket: Path, scratch: Path, tmp_path: Path) -> None:
    dataset, init = put(encoded, bucket / "dataset"), put(CHECKPOINT, bucket / "init")
    there = (f"init={uri(init)}", f"datasets.main.path={uri(dataset)}", "run.keep=2")
    train(encoded, tmp_path / "whole")
    out = bucket / "run"
    assert stop(encoded, out, *there, after=5, how=signal.SIGKILL) == -signal.SIGKILL
    assert "step-00000004" in file_names(out / "checkpoints") and "export" not in file_names(out)
    said = train(encoded, out, *there)
    assert "resuming from step-0000000" in said
    assert figures(out) == figures(tmp_path / "whole") and len(figures(out)) == STEPS
    assert file_names(out / "checkpoints") == {"step-00000006", "step-00000008"}
    exported, expected = load_checkpoint(out / "export"), load_checkpoint(tmp_path / "whole" / "export")
    theirs = expected.model.state_dict()
    assert all(tensor.equal(theirs[name]) for name, tensor in exported.model.state_dict().items())
    # Nothing lies beside the scratch folder, and the same command does nothing more.
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "scratch"}
    assert "done: " in train(encoded, out, *there)


@pytest.mark.slow
def test_a_codec_run_resumes_from_data_in_object_storage(bucket: Path, scratch: Path, tmp_path: Path) -> None:
    corpus = make_folder(tmp_path / "corpus")
    remote, out = put(corpus, bucket / "corpus"), bucket / "vae"
    train_codec(corpus, tmp_path / "whole")
    train_codec(remote, out, "run.steps=2")
    said = train_codec(remote, out)
    assert "resuming from checkpoint-00000002" in said
    resumed, whole = ([row for row in numbers(place) if row["step"] > 2] for place in (out, tmp_path / "whole"))
    assert resumed == whole and len(whole) == 3
    assert {"checkpoint-00000004", "metrics.jsonl", "media", "skipped.json"} <= file_names(out)
    assert "audiovae.pth" in file_names(out / "checkpoint-00000004")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run.out=ftp://host/run", "unknown scheme 'ftp'"),
        ("init=s3:/bucket/init", "a URI has two slashes"),
        ("datasets.main.path=s3://", "names no bucket"),
        ("init={a: 1}", "must be a path or URI"),
    ],
)
def test_what_no_storage_has_is_refused_in_one_line(
    override: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxmill(["train", "tiny_stage2", override]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said and override.partition("=")[0] in said
