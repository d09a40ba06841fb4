"""The trainer as it is run: processes, ranks, kills, and the checkpoint that comes out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_vae
from model.config import read_config
from samples.fabricate import make_folder
from tests.support.codec_corpus import SETTINGS
from training.codec.checkpoint import fixed_settings
from training.codec.config import VAETrainConfig, read_recipe
from training.codec.loop import LEARNING_RATES, Run
from training.run.checkpoints import changed_settings
from training.run.stop_signal import StopSignal
from training.run.world import World
from voxmill.cli.app import run as voxmill
from voxmill.core.config import known_keys
from voxmill.core.errors import ExitStatus, UserError
from voxmill.core.local_ray import free_port

ROOT = Path(__file__).resolve().parents[3]
TOLD = ("mel", "waveform", "kl", "adversarial", "feature", "discriminator", "total", "gradient_norm", "valid_mel")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("corpus"))


def environment(rank: int = 0, ranks: int = 1, port: int = 0) -> dict[str, str]:
    many = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    base = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    base |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return base | (many | {"MASTER_PORT": str(port)} if ranks > 1 else {})


SCRIPT = ("training/train_vae.py",)


def start(
    corpus: Path, out: Path, *overrides: str, ranks: int = 1, script: Sequence[str] = SCRIPT
) -> list[subprocess.Popen[str]]:
    command = [sys.executable, *script, str(corpus), str(out), *SETTINGS, *overrides]
    port = free_port()
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(rank, ranks, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]


def run(
    corpus: Path, out: Path, *overrides: str, ranks: int = 1, status: int = 0, script: Sequence[str] = SCRIPT
) -> str:
    started = start(corpus, out, *overrides, ranks=ranks, script=script)
    said = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [status] * ranks, "\n".join(said)
    return said[0]


def numbers(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key in ("step", *TOLD)} for row in rows]


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps on one rank, never disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(corpus, out)
    return out


def test_losses_and_files(whole: Path) -> None:
    rows = numbers(whole)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 4]
    assert "adversarial" not in rows[1] and set(TOLD) - {"valid_mel"} <= set(rows[2])
    assert rows[-1]["valid_mel"] != rows[0]["valid_mel"]
    assert (whole / "media" / "00000004" / "0-mel.png").stat().st_size > 1000
    assert (whole / "media" / "00000004" / "0-made.wav").exists()
    skipped = json.loads((whole / "skipped.json").read_text())
    assert {"empty_file", "not_audio", "sample_rate", "too_short"} == set(skipped["listing"])


def test_released_layout(whole: Path) -> None:
    folder = whole / "checkpoint-00000004"
    config = read_config(folder)
    vae = load_vae(folder, config)
    assert config.feat_dim == config.audio_vae_config.latent_dim == 4
    audio_BT = torch.randn(1, 3 * vae.hop, generator=torch.Generator().manual_seed(0)) * 0.1
    assert vae.decode(vae.encode(audio_BT), sample_rate=16000).shape == (1, 3 * vae.samples_per_latent)
    stored = torch.load(folder / "audiovae.pth", weights_only=True)["state_dict"]
    assert set(stored) == set(vae.state_dict())
    # Only the conditions of rates that the corpus has were trained: 16 kHz (bin 0) and 48 kHz (bin 3).
    from training.codec.model import new_vae

    _, first = new_vae(read_recipe(None, SETTINGS).model, seed=0)
    table = "decoder.sr_cond_model.2.scale_embed.weight"
    moved = (stored[table] - first.state_dict()[table]).abs().amax(dim=1) > 1e-7
    assert moved.tolist()[1:3] == [False, False] and moved[0] and moved[3]


@pytest.mark.slow
def test_another_number_of_ranks(corpus: Path, whole: Path, tmp_path: Path) -> None:
    """Two ranks give the losses of one, and one resumes from a checkpoint of two."""
    out = tmp_path / "out"
    assert "2 ranks" in run(corpus, out, "run.steps=2", ranks=2)
    run(corpus, out)
    rows, expected = numbers(out), numbers(whole)
    steps = [(row["step"], "valid_mel" in row) for row in rows]
    assert steps == [(0, True), (1, False), (2, False), (2, True), (3, False), (4, False), (4, True)]
    by_step = {(row["step"], "valid_mel" in row): row for row in expected}
    for key, row in zip(steps, rows, strict=True):
        if key != (2, True):
            assert row == pytest.approx(by_step[key], rel=2e-3), key


def test_killed_and_resumed(corpus: Path, whole: Path, tmp_path: Path) -> None:
    """Killed without a word after a checkpoint: the resumed run makes the very same losses."""
    out = tmp_path / "out"
    (process,) = start(corpus, out, "run.steps=1000000", "run.save_every=2")
    wait_for(out / "checkpoint-00000002", process)
    process.kill()
    process.communicate()
    last = max(int(path.name.split("-")[1]) for path in out.glob("checkpoint-*"))
    assert last < 1000
    for path in out.glob("checkpoint-*"):
        if path.name != "checkpoint-00000002":
            shutil.rmtree(path)  # so that there is something left to do again
    run(corpus, out)
    assert numbers(out)[-4:] == numbers(whole)[-4:]


def test_terminated(corpus: Path, tmp_path: Path) -> None:
    """SIGTERM: saved after the step, reported, and a status of its own; here in bf16."""
    out = tmp_path / "out"
    (process,) = start(corpus, out, "run.steps=1000000", "run.save_every=1000000", "precision=bf16")
    wait_for(out / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == ExitStatus.STOPPED, said
    assert len(list(out.glob("checkpoint-*"))) == 1 and "stopped by a signal after step" in said


@pytest.mark.slow
def test_a_stop_signal_before_the_first_step_is_answered_before_it(
    corpus: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, stop = tmp_path / "out", StopSignal()
    made = Run(str(corpus), out, read_recipe(None, SETTINGS), world, stop)
    stop.set()
    assert made() == ExitStatus.STOPPED and made.step == 0
    assert "stopped by a signal before the first step" in capsys.readouterr().out
    assert not list(out.glob("checkpoint-*")) and not (out / "metrics.jsonl").exists()


def test_infinite_settings_are_resumed(corpus: Path) -> None:
    config = read_recipe(None, [*SETTINGS, "optimizer.clip=.inf"])
    settings = fixed_settings(config)
    assert json.loads(json.dumps(settings, allow_nan=False)) == settings
    lower = fixed_settings(read_recipe(None, [*SETTINGS, "optimizer.clip=2"]))
    assert changed_settings(settings, lower, free=LEARNING_RATES).fixed == ["optimizer.clip: None -> 2.0"]


SLOW_ON_RANK_0 = """
import sys, time
from pathlib import Path
from training.codec.config import read_recipe
from training.codec.loop import Run
from training.run.stop_signal import StopSignal
from training.run.world import join_world

class Slow(Run):
    def _validate(self):
        if self.step and self.world.is_first:
            time.sleep(6)

    def _save(self):
        super()._save()
        if self.world.is_first:
            time.sleep(6)

with join_world("cpu") as world:
    corpus, out, *overrides = sys.argv[1:]
    sys.exit(Slow(corpus, Path(out), read_recipe(None, overrides), world, StopSignal())())
"""


@pytest.mark.slow
def test_step_validation_and_save_have_the_time_of_the_watchdog_each(corpus: Path, tmp_path: Path) -> None:
    """Validation and save of rank 0 take 12 s together, in which the other rank waits."""
    often = ("run.steps=3", "run.save_every=2", "run.validate_every=2", "run.hang_seconds=10")
    run(corpus, tmp_path / "out", *often, ranks=2, script=["-c", SLOW_ON_RANK_0])


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run(corpus: Path, tmp_path: Path) -> None:
    """Two ranks, one of which is stopped by the system: the watchdog ends the other with a status of its own."""
    out = tmp_path / "out"
    often = ("run.steps=1000000", "run.save_every=1000000", "run.validate_every=1000000", "run.hang_seconds=10")
    first, second = start(corpus, out, *often, ranks=2)
    try:
        wait_for(out / "metrics.jsonl", first)
        # The clock begins with the first step.
        while not any("total" in row for row in numbers(out)):
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.05)
        second.send_signal(signal.SIGSTOP)
        said, _ = first.communicate(timeout=200)
    finally:
        for process in (first, second):
            process.kill()
    second.communicate()
    assert first.returncode == ExitStatus.HUNG, said
    assert "rank 0: no step finished for 10 s after step" in said and "stacks of all threads" in said


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{corpus}"], "missing argument 'OUT'"),
        (["/nowhere/at/all", "{out}", "tiny"], "no such file or folder"),
        (["{corpus}", "{out}", "huge"], "one of small, tiny, voxcpm2"),
        (["{corpus}", "{out}", "loss.mell=3"], "did you mean 'loss.mel'"),
        (["{corpus}", "{out}", "rows=0"], "rows"),
        (["{corpus}", "{out}", "batch=4"], "unknown key 'batch'; it is now 'rows'"),
        (["{corpus}", "{out}", "run.zero_stage=2"], "it is now 'engine.zero'"),
        (["{corpus}", "{out}", "optimizer.rate=1"], "it is now 'optimizer.learning_rate'"),
        (["{corpus}", "{out}", "optimizer.discriminator_rate=1"], "it is now 'optimizer.discriminator_learning_rate'"),
        (["{corpus}", "{out}", "optimizer.warmup=1"], "it is now 'optimizer.warmup_steps'"),
        (["{corpus}", "{out}", "data.seconds=0.5"], "multiple of a latent frame, 0.04 s"),
        (["{corpus}", "{out}", "model.audio_vae={decoder_rates: [2]}"], "one length in time"),
        (["{corpus}", "{out}", "run.device=cuda"], "no CUDA device"),
        (["{corpus}", "{whole}", *SETTINGS, "loss.mel=3"], "loss.mel: 15.0 -> 3.0"),
    ],
)
def test_mistakes(
    arguments: list[str], words: str, corpus: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words == "no CUDA device" and torch.cuda.is_available():
        pytest.skip("a CUDA device is there")
    places = {"{corpus}": str(corpus), "{out}": str(tmp_path / "out"), "{whole}": str(whole)}
    assert voxmill(["train-vae", *[places.get(argument, argument) for argument in arguments]]) == 2
    said = capsys.readouterr().err
    assert said.startswith("voxmill train-vae: ") and said.count("\n") == 1 and words in said


@pytest.mark.slow
def test_a_cut_off_checkpoint_is_reported_and_the_one_before_is_used(corpus: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    weights = out / "checkpoint-00000004" / "training" / "autoencoder" / "rank-00000.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    said = run(corpus, out)
    assert f"{weights.parents[2]}: training/autoencoder/rank-00000.safetensors was altered or cut off" in said
    assert "from step 2, 1 ranks" in said
    assert numbers(out) == numbers(whole)


def test_a_checkpoint_of_an_older_version_is_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "out" / "checkpoint-00000004" / "training"
    old.mkdir(parents=True)
    (old / "state.json").write_text(json.dumps({"step": 4, "steps": {"autoencoder": 4}}))
    assert voxmill(["train-vae", str(corpus), str(tmp_path / "out"), *SETTINGS]) == ExitStatus.USER_ERROR
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be resumed; start again in an empty OUT" in said


OFTEN = ("run.save_every=1", "run.validate_every=100", "run.listen=0")


@pytest.fixture(scope="module")
def good(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good steps, each saved."""
    out = tmp_path_factory.mktemp("good") / "out"
    run(corpus, out, *OFTEN, "run.steps=2")
    return out


@pytest.mark.slow
def test_skipped_steps_leave_good_checkpoints_and_a_lower_rate_resumes(
    corpus: Path, good: Path, tmp_path: Path
) -> None:
    out, often = Path(shutil.copytree(good, tmp_path / "out")), OFTEN
    # The first update destroys the weights; no step after it has a finite loss.
    said = run(corpus, out, *often, "run.steps=40", "optimizer.learning_rate=1e30", status=ExitStatus.FAILED)
    names = sorted(path.name for path in out.glob("checkpoint-*"))
    assert names == ["checkpoint-00000002", "checkpoint-00000003"]
    assert said.strip().splitlines()[-1] == (
        "voxmill train-vae: no finite loss in 20 steps up to step 23; lower optimizer.learning_rate, "
        "remove checkpoint-00000003, whose weights give none, and run the same command again to resume from "
        "checkpoint-00000002"
    )
    shutil.rmtree(out / "checkpoint-00000003")
    said = run(corpus, out, *often, "run.steps=4", "optimizer.learning_rate=1e-5")
    assert "resuming from checkpoint-00000002; optimizer.learning_rate: 0.0001 -> 1e-05" in said
    assert "from step 2, 1 ranks" in said
    rows = numbers(out)
    assert [row["step"] for row in rows if "total" in row] == [1, 2, 3, 4]


@pytest.mark.slow
def test_skipped_steps_in_a_row_are_counted_across_a_stop(corpus: Path, good: Path, tmp_path: Path) -> None:
    """What is saved while steps are skipped replaces no good checkpoint, and the count goes with it."""
    out = Path(shutil.copytree(good, tmp_path / "out"))
    broken = (*OFTEN, "optimizer.learning_rate=1e30", "run.keep=1")
    run(corpus, out, *broken, "run.steps=13")
    names = sorted(path.name for path in out.glob("checkpoint-*"))
    assert names == ["checkpoint-00000003", "checkpoint-00000013"]
    said = run(corpus, out, *broken, "run.steps=100", status=ExitStatus.FAILED)
    assert "no finite loss in 20 steps up to step 23" in said


def test_start_from(whole: Path) -> None:
    from training.codec.model import new_vae

    folder = whole / "checkpoint-00000004"
    config = read_recipe(None, [f"model={{start_from: '{folder}'}}"])
    released, vae = new_vae(config.model, seed=5)
    assert released.audio_vae_config.decoder_dim == 64
    assert torch.equal(vae.encoder.fc_mu.weight_v, load_vae(folder, released).encoder.fc_mu.weight_v)
    assert vae.encoder.fc_mu.weight_v.requires_grad
    with pytest.raises(UserError, match="model.preset has no effect"):
        new_vae(read_recipe(None, [f"model={{start_from: '{folder}', preset: small}}"]).model, seed=5)


@pytest.mark.parametrize("name", ["tiny", "small", "voxcpm2"])
def test_recipes(name: str) -> None:
    config = read_recipe(name, [])
    assert config.adversarial == (name != "tiny") and "data.held_out" in known_keys(VAETrainConfig)
