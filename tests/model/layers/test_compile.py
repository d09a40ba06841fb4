"""Compiled layers: the same losses and gradients, rows of any length, with and without recomputed activations."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.layers.attention import Bidirectional, Documents, Packed
from model.layers.transformer import MiniCPM, compile_layers, recompute_layers
from model.lora import LoRAConfig, add_lora
from model.presets import preset
from model.sequence.layouts import arrange
from model.sequence.packing import PackedBatch, pack
from model.voxcpm2 import VoxCPM2

CONFIG = preset("tiny")
STACK = CONFIG.lm_config.model_copy(update={"num_hidden_layers": 2})


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def run(stack: nn.Module, lengths: tuple[int, ...]) -> list[Tensor]:
    """The output of a packed row of documents and its gradients."""
    stack.zero_grad(set_to_none=True)
    hidden_NC = torch.randn(sum(lengths), STACK.hidden_size, generator=torch.Generator().manual_seed(len(lengths)))
    out_NC = stack(hidden_NC, Packed(Documents(lengths)))
    out_NC.square().sum().backward()
    return [out_NC.detach(), *(p.grad.clone() for p in stack.parameters() if p.grad is not None)]


def test_a_compiled_stack_is_traced_once_for_rows_of_every_length() -> None:
    """Traced by dynamo and aot_autograd, whose graphs compute what the layers do, but for the rounding of norms."""
    torch.manual_seed(0)
    plain = MiniCPM(STACK)
    compiled = copy.deepcopy(plain)
    compile_layers(compiled, backend="aot_eager")
    recompute_layers(compiled, 0.5)
    rows = ((5, 3), (4,), (2, 7, 1))
    for lengths in rows:
        for wanted, found in zip(run(plain, lengths), run(compiled, lengths), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))
    # Two functions, of the first layer, whose input has no gradient, and of the others; none for another row.
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["total"] == frames["ok"] == 4
    # A forward derivative, as MeanFlow takes it, goes past what is compiled.
    hidden_BTC, tangent_BTC = torch.randn(2, 3, 4, STACK.hidden_size)

    def slope(stack: MiniCPM) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            slope_BTC: Tensor = torch.func.jvp(lambda x: stack(x, Bidirectional()), (hidden_BTC,), (tangent_BTC,))[1]
            return slope_BTC

    assert torch.equal(slope(compiled), slope(plain))


def row(count: int) -> PackedBatch:
    shape = (CONFIG.patch_size, CONFIG.feat_dim)
    generator = torch.Generator().manual_seed(count)
    layouts = [
        arrange(
            list(range(5, 15 + number)),
            target_GPD=torch.randn(4 + number, *shape, generator=generator),
            closed=True,
            patch_shape=shape,
            max_length=512,
        )
        for number in range(count)
    ]
    return pack(layouts)


def model_losses(model: VoxCPM2, counts: tuple[int, ...]) -> list[tuple[float, float]]:
    """(loss, norm of the gradient) of each row; dropout draws from a seed."""
    found = []
    for count in counts:
        model.zero_grad(set_to_none=True)
        torch.manual_seed(count)
        loss = model(row(count), generator=torch.Generator().manual_seed(1)).total()
        loss.backward()
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        found.append((float(loss.detach()), float(torch.stack(norms).norm())))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True])
def test_inductor_computes_the_same_losses(adapted: bool) -> None:
    """fp32, half of the layers computed again; adapters with dropout, which must draw the same numbers."""
    torch.manual_seed(0)
    model = VoxCPM2(CONFIG).train()
    if adapted:
        add_lora(model, LoRAConfig(enable_lm=True, enable_dit=True, dropout=0.3))
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                nn.init.normal_(parameter, std=0.1)
    wanted = model_losses(model, (2, 3))
    recompute_layers(model, 0.5)
    compile_layers(model)
    found = model_losses(model, (2, 3))
    assert [x[0] for x in found] == pytest.approx([x[0] for x in wanted], rel=1e-6)
    assert [x[1] for x in found] == pytest.approx([x[1] for x in wanted], rel=1e-5)
