"""The engine: trained weights, their moving average, and recomputed activations, under every ZeRO stage."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from model.checkpoint import load_model
from model.config import read_config
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from tests.support.saved_state import saved_to
from training.curriculum.corpus import Corpus, read_corpus
from training.curriculum.engine import Engine
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.sample_stream import SampleStream
from training.curriculum.step import Stepper, StepResult, read_rows
from training.run.world import World
from training.run.zero_state import AVERAGE
from voxmill.core.sharded_tensors import rank_file

STAGES = [0, 1, 2, 3]
SOME_STAGES = [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow), 2, 3]
"""Of tests whose worth is in two ways to divide a model; the others are run by hand."""
State = dict[str, dict[str, torch.Tensor]]


def recipe(encoded: Path, *overrides: str, name: str = "tiny_finetune_full") -> Recipe:
    wanted = [f"datasets.main.path={encoded}", f"init={CHECKPOINT}", "rows=2", "optimizer.ema=null"]
    return load_recipe(name, [*wanted, *overrides])


def engine_of(settings: Recipe, world: World) -> Engine:
    return Engine(load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32), settings, world)


def steps(engine: Engine, corpus: Corpus, settings: Recipe, count: int, start: int = 0) -> list[StepResult]:
    stream = SampleStream(corpus, settings, TextTokenizer.from_folder(CHECKPOINT))
    stepper = Stepper(engine, settings, patch_size=4, spike=None)
    found = []
    for step in range(start + count):
        rows = stream.next_step()
        if step >= start:
            found.append(stepper(*read_rows(rows, engine.world, stream.reader), step=step, rate=2e-3))
    return found


def state(engine: Engine) -> State:
    return dict(engine.state.tensors())


def losses(results: list[StepResult]) -> list[float]:
    return [result.loss for result in results]


@pytest.mark.parametrize("zero", SOME_STAGES)
def test_the_average_follows_the_weights_and_is_put_to_use(encoded: Path, world: World, zero: int) -> None:
    """Against the same average computed here, from weights taken out after each step."""
    settings = recipe(encoded, f"engine.zero={zero}", "optimizer.ema=0.3")
    corpus = read_corpus(settings)
    engine = engine_of(settings, world)
    wanted = {name: values["weight"] for name, values in engine.state.tensors()}
    for number in range(3):
        steps(engine, corpus, settings, 1, start=number)
        decay = min(0.3, (2 + number) / (11 + number))
        for name, values in engine.state.tensors(["weight"]):
            wanted[name] = decay * wanted[name] + (1 - decay) * values["weight"]
    now = state(engine)
    for name, values in now.items():
        torch.testing.assert_close(values[AVERAGE], wanted[name], rtol=1e-5, atol=1e-7)
    assert any((values[AVERAGE] - values["weight"]).abs().max() > 1e-4 for values in now.values())
    plain = load_model(CHECKPOINT, read_config(CHECKPOINT), dtype=torch.float32)
    stream = SampleStream(corpus, settings, TextTokenizer.from_folder(CHECKPOINT))
    (rows, _) = read_rows(stream.next_step(), engine.world, stream.reader)
    assert rows[0].batch is not None

    def both(model: nn.Module | None) -> list[float]:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            if model is None:
                found = engine.forward(rows[0].batch, generator, 0.0)[:2]  # type: ignore[arg-type]
            else:
                sums = model(rows[0].batch, generator=generator)
                found = (sums.diffusion, sums.stop)
        return [float(value) for value in found]

    for kind in ("weight", AVERAGE):
        plain.load_state_dict({name: values[kind] for name, values in now.items()})
        if kind == AVERAGE:
            with engine.state.averaged():
                assert both(None) == pytest.approx(both(plain), rel=1e-5)
        else:
            ours = both(None)
            assert ours == pytest.approx(both(plain), rel=1e-5)
    # Outside nothing is left of it, and the run continues as without it.
    assert both(None) == ours
    after = state(engine)
    assert all(torch.equal(after[name][kind], now[name][kind]) for name in now for kind in now[name])


@pytest.mark.parametrize("zero", STAGES)
def test_an_average_is_fp32_where_the_weights_compute_in_bf16(encoded: Path, world: World, zero: int) -> None:
    settings = recipe(encoded, f"engine.zero={zero}", "engine.dtype=bfloat16", "optimizer.ema=0.3")
    corpus = read_corpus(settings)
    engine = engine_of(settings, world)
    steps(engine, corpus, settings, 2)
    rounded = [
        tensor.bfloat16().float().equal(tensor)
        for _, values in engine.state.tensors([AVERAGE])
        for tensor in values.values()
    ]
    assert sum(rounded) < len(rounded) / 2
    stream = SampleStream(corpus, settings, TextTokenizer.from_folder(CHECKPOINT))
    (rows, _) = read_rows(stream.next_step(), engine.world, stream.reader)

    def loss() -> float:
        assert rows[0].batch is not None
        with torch.no_grad():
            return float(sum(engine.forward(rows[0].batch, torch.Generator().manual_seed(1), 0.0)[:2]))

    before = loss()
    with engine.state.averaged():
        assert loss() != before
    assert loss() == before


@pytest.mark.parametrize("zero", SOME_STAGES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_with_an_average_goes_into_another_engine(
    encoded: Path, world: World, zero: int, dtype: str, tmp_path: Path
) -> None:
    settings = recipe(encoded, f"engine.zero={zero}", "optimizer.ema=0.5", f"engine.dtype={dtype}")
    corpus = read_corpus(settings)
    engine = engine_of(settings, world)
    steps(engine, corpus, settings, 2)
    before, saved = state(engine), saved_to(tmp_path, engine.state)
    # What safetensors itself finds there is what DeepSpeed gathers.
    with safe_open(tmp_path / rank_file(0), framework="pt") as file:
        assert {f"{kind}/{name}" for name in before for kind in before[name]} == set(file.keys())
        for name, values in before.items():
            for kind, tensor in values.items():
                assert torch.equal(file.get_tensor(f"{kind}/{name}").view(tensor.shape), tensor)
    wanted = losses(steps(engine, corpus, settings, 2, start=2))
    other = engine_of(settings, world)
    other.state.restore(saved, 2)
    assert losses(steps(other, corpus, settings, 2, start=2)) == wanted
    assert all(values["exp_avg_sq"].abs().max() > 0 for values in before.values())
    ours, theirs = state(engine), state(other)
    assert all(torch.equal(ours[name][kind], theirs[name][kind]) for name in ours for kind in ours[name])


@pytest.mark.parametrize("zero", STAGES)
def test_adapters_alone_are_trained(encoded: Path, world: World, zero: int) -> None:
    settings = recipe(encoded, f"engine.zero={zero}", "lora.dropout=0.1", name="tiny_finetune_lora")
    corpus = read_corpus(settings)
    engine = engine_of(settings, world)
    frozen = [p for p in engine.losses.parameters() if not p.requires_grad]
    assert len(frozen) > 100
    before = state(engine)
    assert before and all(name.endswith(("lora_A", "lora_B")) for name in before)
    first = losses(steps(engine, corpus, settings, 3))
    assert all(parameter.grad is None for parameter in frozen)
    held = sum(t.numel() for s in engine.state.adamw.state.values() for t in s.values() if t.dim())
    trained = sum(values["weight"].numel() for values in before.values())
    assert 2 * trained <= held < 2 * trained + 64
    after = state(engine)
    assert all((after[name]["weight"] - before[name]["weight"]).abs().max() > 0 for name in before)
    again = engine_of(settings, world)
    assert losses(steps(again, corpus, settings, 3)) == first


@pytest.mark.parametrize(
    ("name", "zero"),
    [
        ("tiny_finetune_full", 3),
        ("tiny_finetune_lora", 2),
        *(pytest.param("tiny_finetune_lora", zero, marks=pytest.mark.slow) for zero in (0, 1, 3)),
        *(pytest.param("tiny_finetune_full", zero, marks=pytest.mark.slow) for zero in (0, 1, 2)),
    ],
)
def test_recomputed_activations_change_no_loss(encoded: Path, world: World, zero: int, name: str) -> None:
    found = []
    for recompute in ("false", "true", "0.5") if zero == 2 else ("false", "true"):
        wanted = [f"engine.zero={zero}", f"engine.activation_checkpointing={recompute}"]
        wanted += ["lora.dropout=0.2"] if "lora" in name else []
        settings = recipe(encoded, *wanted, name=name)
        results = steps(engine_of(settings, world), read_corpus(settings), settings, 3)
        found.append([(result.loss, result.norm) for result in results])
    assert all(one == found[0] for one in found)


@pytest.mark.slow
@pytest.mark.parametrize(("zero", "name"), [(0, "full"), (1, "full"), (2, "full"), (2, "lora")])
def test_compiled_layers_train_as_others(
    encoded: Path, world: World, zero: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and run by aot_autograd, through DeepSpeed, with half of the layers computed again."""
    monkeypatch.setattr("training.curriculum.engine.COMPILER", "aot_eager")
    found = []
    for compiled in ("false", "true"):
        wanted = [f"engine.zero={zero}", f"engine.compile={compiled}", "engine.activation_checkpointing=0.5"]
        settings = recipe(encoded, *wanted, "optimizer.eps=0.001", name=f"tiny_finetune_{name}")
        results = steps(engine_of(settings, world), read_corpus(settings), settings, 3)
        found.append([(result.loss, result.norm) for result in results])
    assert [x[0] for x in found[1]] == pytest.approx([x[0] for x in found[0]], rel=1e-6)
    assert [x[1] for x in found[1]] == pytest.approx([x[1] for x in found[0]], rel=1e-5)


@pytest.mark.parametrize("zero", (2, 3))
def test_an_offloaded_optimizer_computes_the_same(encoded: Path, world: World, zero: int) -> None:
    found = []
    for offload in ("false", "true"):
        settings = recipe(encoded, f"engine.zero={zero}", f"engine.offload={offload}", "optimizer.ema=0.5")
        engine = engine_of(settings, world)
        results = steps(engine, read_corpus(settings), settings, 3)
        found.append((losses(results), state(engine)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, values in found[0][1].items():
        torch.testing.assert_close(values[AVERAGE], found[1][1][name][AVERAGE], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("zero", (2, 3))
def test_gradients_of_rows_are_added_up_in_fp32(encoded: Path, world: World, zero: int) -> None:
    """The same row eight times gives eight times its gradient; in bf16, three times it would already be rounded."""
    from deepspeed.utils import safe_get_full_grad

    def gradients(rows: int) -> dict[str, torch.Tensor]:
        settings = recipe(encoded, f"engine.zero={zero}", "engine.dtype=bfloat16", f"rows={rows}")
        corpus = read_corpus(settings)
        engine = engine_of(settings, world)
        stream = SampleStream(corpus, settings, TextTokenizer.from_folder(CHECKPOINT))
        batch = read_rows(stream.next_step(), engine.world, stream.reader)[0][0].batch
        assert batch is not None
        for row in range(rows):
            diffusion, stop, _ = engine.forward(batch, torch.Generator().manual_seed(1), 0.0)
            engine.backward((diffusion + stop) / 1000)
            if row < rows - 1:
                engine.row_done()
        return {name: safe_get_full_grad(parameter).float().clone() for parameter, name in engine.state.names.items()}

    one, eight = gradients(1), gradients(8)
    assert any(gradient.abs().max() > 0 for gradient in one.values())
    for name, gradient in one.items():
        torch.testing.assert_close(eight[name], 8 * gradient, rtol=1e-5, atol=0)
