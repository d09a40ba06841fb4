"""Batches, plain, packed and static: whichever requests join and leave, each generates the same as alone."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from model.codec.audio_vae import AudioVAE
from model.generation.continuous_batch import ContinuousBatch
from model.generation.generator import Generator
from model.generation.request import Request
from model.generation.static_batch import StaticBatch
from model.layers.packed_linear import PackedLinear, can_pack, packed
from model.voxcpm2 import VoxCPM2
from tests.model.generation.spoken_cases import CASES, check, finish, row_of, same, sentences, spoken
from tests.support.oracle import Oracle


def test_joins_and_leaves_change_nothing(oracle: Oracle, generator: Generator) -> None:
    """All cases in one batch, joining at different steps, leaving as they finish: each as alone, to 1e-4."""
    batch = ContinuousBatch(packed(oracle.core()))
    rows = {case: row_of(oracle, generator, case) for case in CASES}
    waiting = list(rows)
    sizes: list[int] = []
    while waiting or batch.active:
        batch.join([rows[waiting.pop(0)] for _ in range(min(len(waiting), 1 + len(sizes) % 3))])
        sizes.append(len(batch.active))
        batch.step()
    assert len(set(sizes)) >= 4  # the batch did grow and shrink
    for case, row in rows.items():
        assert check(oracle, row, case) <= 1e-4
        alone = row_of(oracle, generator, case)
        batch.join([alone])
        finish(batch)
        assert alone.stops == row.stops and alone.finish == row.finish
        assert (spoken(alone) - spoken(row)).abs().max() <= 5e-5


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_static_buffers_change_nothing(
    monkeypatch: pytest.MonkeyPatch, oracle: Oracle, model: VoxCPM2, generator: Generator, compiled: bool
) -> None:
    """The GPU's batch, run here without graphs: joins, leaves, two numbers of steps, and buffers that grow."""
    if compiled:  # whether all can be traced; the code is not compiled
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    batch = StaticBatch(model, 4, capacity=16, compiled=compiled)
    rows = {case: row_of(oracle, generator, case) for case in (CASES[:4] if compiled else CASES)}
    waiting = list(rows)
    while waiting or batch.active:
        free = batch.slots - len(batch.active)
        batch.join([rows[waiting.pop(0)] for _ in range(min(len(waiting), free))])
        assert len(batch.step()) <= 4
    for case, row in rows.items():
        assert check(oracle, row, case) <= 1e-4
    assert batch.capacity > 16
    left = row_of(oracle, generator, CASES[0])
    batch.join([left])
    batch.leave([left])
    assert batch.step() == [] and left.patches == []
    with pytest.raises(ValueError, match="4 slots"):
        batch.join([row_of(oracle, generator, case) for case in CASES[:5]])


def test_static_generator(oracle: Oracle, model: VoxCPM2, vae: AudioVAE, generator: Generator) -> None:
    static = Generator(model, vae, generator.tokenizer, pack=False, static=True)
    plain = Generator(model, vae, generator.tokenizer, pack=False)
    for _ in range(2):  # the second time in the buffers of the first
        spoken_by_number, expected = (dict(which.generate_many(sentences(), batch_size=3)) for which in (static, plain))
        for number, speech in expected.items():
            assert spoken_by_number[number].finish == speech.finish and len(
                spoken_by_number[number].patches_GPD
            ) == len(speech.patches_GPD)
            assert (spoken_by_number[number].patches_GPD - speech.patches_GPD).abs().max() <= 1e-3
    assert [batch.slots for batch in static._idle] == [4]
    pieces = static.stream_many(sentences(), batch_size=3)
    next(pieces)
    pieces.close()  # the buffers are free for the next stream
    assert [batch.slots for batch in static._idle] == [4] and not static._idle[0].active


def test_requests_may_leave_before_they_are_finished(oracle: Oracle, model: VoxCPM2, generator: Generator) -> None:
    batch = ContinuousBatch(model)
    rows = [row_of(oracle, generator, case) for case in CASES[:4]]
    batch.join(rows)
    batch.step()
    batch.leave(rows[:2])
    finish(batch)
    assert [len(row.patches) for row in rows[:2]] == [1, 1]
    assert all(row.finish is not None for row in rows[2:])
    assert max(check(oracle, row, case) for row, case in zip(rows[2:], CASES[2:4], strict=True)) <= 1e-4
    batch.join(rows[:0])
    batch.leave(rows[2:])
    assert batch.step() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_many_are_as_alone(oracle: Oracle, vae: AudioVAE, generator: Generator, dtype: torch.dtype) -> None:
    """A request generates the same in any batch, to the last bit where weights are packed."""
    speaker = Generator(oracle.core().to(dtype), vae, generator.tokenizer)
    requests = sentences(max_len=20)
    for size in (3, 5):
        spoken_by_number = dict(speaker.generate_many(iter(requests), batch_size=size))
        assert sorted(spoken_by_number) == list(range(len(requests)))
        for number, request in enumerate(requests):
            alone = speaker.generate(request)
            if can_pack(dtype):
                assert same(alone, spoken_by_number[number])
            else:  # later patches amplify the rounding of the first
                assert (alone.patches_GPD[0] - spoken_by_number[number].patches_GPD[0]).abs().max() <= 0.05
    assert len({len(speech.patches_GPD) for speech in spoken_by_number.values()}) > 1  # they left one by one


def test_requests_are_taken_as_slots_become_free(generator: Generator) -> None:
    taken: list[int] = []

    def source() -> Iterator[Request]:
        for number, request in enumerate(sentences()):
            taken.append(number)
            yield request

    for done, _ in enumerate(generator.generate_many(source(), batch_size=2), start=1):
        assert len(taken) <= 2 + done
    assert taken == list(range(5))


def test_packed_twin(model: VoxCPM2) -> None:
    if not can_pack(torch.float32):
        pytest.skip("this machine's PyTorch has no packed kernels")
    twin = packed(model)
    assert isinstance(twin.get_submodule("base_lm.layers.0.self_attn.q_proj"), PackedLinear)
    assert twin.base_lm.embed_tokens.weight is model.base_lm.embed_tokens.weight
    assert isinstance(
        model.get_submodule("base_lm.layers.0.self_attn.q_proj"), torch.nn.Linear
    )  # the model is as it was
    hidden = torch.linspace(-2, 2, 3 * model.config.lm_config.hidden_size).view(3, -1)
    with torch.no_grad():
        for name in ("stop_proj", "lm_to_dit_proj"):
            plain, fast = (getattr(which, name)(hidden) for which in (model, twin))
            assert (plain - fast).abs().max() <= 1e-5 * plain.abs().max()
        mlp, fast_mlp = (which.get_submodule("base_lm.layers.0.mlp") for which in (model, twin))
        assert (mlp(hidden) - fast_mlp(hidden)).abs().max() <= 1e-5 * mlp(hidden).abs().max()
