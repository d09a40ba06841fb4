"""Fine-tuning as a user runs it: adapters learn, resume exactly, and speak in our code and in the released one."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint, load_model
from model.config import read_config
from model.generation.generator import Generator
from model.generation.request import Request, Settings
from model.lora import load_lora, lora_state, merge_lora, read_lora_config
from samples.fabricate import CHECKPOINT
from samples.released import is_installed
from tests.support.runs import arguments, figures, metrics, stop, train
from training.curriculum.corpus import read_corpus
from training.curriculum.loop import Run
from training.curriculum.recipe import load_recipe
from training.run.stop_signal import StopSignal
from training.run.world import World
from voxmill.core.errors import UserError
from voxmill.core.sharded_tensors import ShardedTensors

LORA = "tiny_finetune_lora"
LONGER = ("steps=16", "run.save_every=4", "run.merged=true")


@pytest.fixture(scope="module")
def adapted(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run that nothing interrupted."""
    out = tmp_path_factory.mktemp("lora") / "out"
    said = train(encoded, out, *LONGER, recipe=LORA)
    assert "M of adapters" in said and "fine-tuning: 16 steps" in said
    return out


def test_adapters_learn_and_a_checkpoint_holds_them_alone(adapted: Path) -> None:
    losses = [line["loss"] for line in metrics(adapted)]
    assert losses[-1] < 0.8 * losses[0]
    newest = max((adapted / "checkpoints").glob("step-*"))
    saved = dict(ShardedTensors(newest).whole("weight"))
    whole = (CHECKPOINT / "model.safetensors").stat().st_size
    assert 0 < sum(tensor.numel() * 4 for tensor in saved.values()) < whole / 2
    assert all(name.endswith(("lora_A", "lora_B")) for name in saved)


def test_the_export_is_an_adapter_in_the_released_layout(adapted: Path) -> None:
    folder = adapted / "export"
    assert sorted(path.name for path in folder.iterdir()) == ["lora_config.json", "lora_weights.safetensors"]
    assert json.loads((folder / "lora_config.json").read_text())["base_model"] == str(CHECKPOINT)
    assert read_lora_config(folder).r == 8
    ours = load_checkpoint(CHECKPOINT, dtype=torch.float32)
    request = Request("Good evening.", settings=Settings(max_len=6, attempts=1), seed=3)
    plain = Generator.of(ours).generate(request)
    load_lora(ours.model, folder)
    state = lora_state(ours.model)
    assert all(tensor.abs().max() > 0 for tensor in state.values())
    spoken = Generator.of(ours).generate(request)
    assert spoken.audio_T.shape != plain.audio_T.shape or not torch.equal(spoken.audio_T, plain.audio_T)
    # The merged checkpoint has the same update inside its weights.
    merge_lora(ours.model)
    merged = load_model(adapted / "merged", read_config(adapted / "merged"), dtype=torch.float32)
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, ours.model.state_dict()[name])


@pytest.mark.skipif(not is_installed(), reason="the released code (voxcpm) is not installed")
def test_the_released_code_loads_the_export(adapted: Path) -> None:
    import transformers  # noqa: F401  (before voxcpm: it must not meet a half-imported torchaudio)
    from voxcpm.model.voxcpm2 import LoRAConfig as ReleasedConfig
    from voxcpm.model.voxcpm2 import VoxCPM2Model

    values = json.loads((adapted / "export" / "lora_config.json").read_text())["lora_config"]
    peer = VoxCPM2Model.from_local(str(CHECKPOINT), optimize=False, device="cpu", lora_config=ReleasedConfig(**values))
    loaded, skipped = peer.load_lora_weights(str(adapted / "export"))
    ours = load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32)
    load_lora(ours, adapted / "export")
    assert not skipped and set(loaded) == set(lora_state(ours))
    theirs = dict(peer.named_parameters())
    assert all(torch.equal(theirs[name].float(), tensor) for name, tensor in lora_state(ours).items())


def test_adapters_resume_exactly(encoded: Path, adapted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert stop(encoded, out, *LONGER, after=6, how=signal.SIGKILL, recipe=LORA) == -9
    assert "resuming from" in train(encoded, out, *LONGER, recipe=LORA)
    assert figures(out) == figures(adapted)


def test_another_base_is_refused_by_name(encoded: Path, adapted: Path, world: World, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(CHECKPOINT, base)
    content = bytearray((base / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (base / "model.safetensors").write_bytes(content)
    name, *overrides = arguments(encoded, adapted, "run.tracking_uri=none", *LONGER, f"init={base}", recipe=LORA)
    recipe = load_recipe(name, overrides)
    with pytest.raises(UserError, match=f"{base}.*its weights are not those"):
        Run(recipe, read_corpus(recipe), world, StopSignal())()


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_adapters_resume_on_other_ranks(encoded: Path, tmp_path: Path, zero: int) -> None:
    same = ("optimizer.eps=0.001", f"engine.zero={zero}", "optimizer.ema=0.9", "lora.dropout=0.1")
    reference, out = tmp_path / "reference", tmp_path / "out"
    train(encoded, reference, *same, recipe=LORA)
    stop(encoded, out, *same, after=3, how=signal.SIGKILL, world=2, recipe=LORA)
    train(encoded, out, *same, "engine.zero=1", world=4, recipe=LORA)
    assert [line[1] for line in figures(out)] == pytest.approx([line[1] for line in figures(reference)], rel=2e-6)


@pytest.mark.slow
def test_all_weights_are_fine_tuned_and_the_average_is_exported(encoded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(encoded, out, "optimizer.learning_rate=1e-3", recipe="tiny_finetune_full")
    losses = [line["loss"] for line in metrics(out)]
    assert losses[-1] < losses[0]
    exported = load_checkpoint(out / "export", dtype=torch.float32).model.state_dict()
    newest = max((out / "checkpoints").glob("step-*"))
    average, weights = (dict(ShardedTensors(newest).whole(kind)) for kind in ("ema", "weight"))
    assert average and all(torch.equal(exported[name], tensor) for name, tensor in average.items())
    assert any(not torch.equal(exported[name], tensor) for name, tensor in weights.items())
