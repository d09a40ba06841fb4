"""The planner's memory against measured tensors: what autograd saves, and what ZeRO leaves on a rank."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cluster.planner.compute import position_flops
from cluster.planner.memory import Dtype, Setup, activation_bytes, rank_memory, state_memory
from model.layers.transformer import recompute_layers
from model.voxcpm2 import VoxCPM2
from tests.cluster.planner.measured import row, small_config, storages
from training.curriculum.plan.memory import shape_of

ROOT = Path(__file__).resolve().parents[3]
TEXT, TARGETS = 100, 300


def test_states_are_divided_as_zero_divides_them() -> None:
    count = 2_290_004_544
    for zero, expected in ((0, 16.0), (1, 4 + 12 / 8), (2, 2 + 16 / 8), (3, 18 / 8)):
        held = state_memory(count, zero=zero, dtype="bfloat16", world=8)  # type: ignore[arg-type]
        assert held.states == pytest.approx(expected * count)
    offloaded = state_memory(count, zero=2, dtype="bfloat16", world=8, offload=True)
    assert offloaded.states == 2 * count and offloaded.host == pytest.approx(2 * count)


def saved_bytes(model: VoxCPM2, dtype: torch.dtype, recompute: float) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights and inputs left out."""
    batch = row(model.config, TEXT, TARGETS).to("cpu", dtype)
    recompute_layers(model, recompute)
    kept: list[Tensor] = []
    outside = storages([*model.parameters(), *model.buffers()])

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sums = model(batch, generator=torch.Generator().manual_seed(0))
    found = storages(kept)
    assert sums.diffusion.requires_grad
    return sum(size for where, size in found.items() if where not in outside)


@pytest.mark.parametrize(
    ("dtype", "recompute"),
    [
        *(("float32", share) for share in (0.0, 0.5, 1.0)),
        ("bfloat16", 0.5),
        *(pytest.param("bfloat16", share, marks=pytest.mark.slow) for share in (0.0, 1.0)),
    ],
)
def test_activations_are_what_autograd_saves(dtype: Dtype, recompute: float) -> None:
    config = small_config()
    model = VoxCPM2(config).to(getattr(torch, dtype)).train()
    positions = TEXT + TARGETS
    setup = Setup(zero=0, dtype=dtype, world=1, positions=positions, audio=TARGETS / positions, recompute=recompute)
    shape = shape_of(config)
    planned = activation_bytes(shape, setup)
    # The layer that is computed again lives in the backward pass, where no hook looks.
    planned -= max(s.again_bytes(dtype, n, recompute=recompute) for s, n in shape.stacks(positions, setup.audio))
    measured = saved_bytes(model, getattr(torch, dtype), recompute)
    print(f"{dtype}, recompute {recompute}: planned {planned / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB")
    # fp32 on a CPU keeps keys and values once a query head, which a GPU does not.
    assert planned == pytest.approx(measured, rel=0.12)


def test_operations_are_those_that_pytorch_counts() -> None:
    config = small_config()
    model = VoxCPM2(config).train()
    with FlopCounterMode(display=False) as counter:
        sums = model(row(config, TEXT, TARGETS), generator=torch.Generator().manual_seed(0))
        (sums.diffusion + sums.stop).backward()
    positions = TEXT + TARGETS
    planned = positions * position_flops(shape_of(config), audio=TARGETS / positions, context=positions)
    print(f"planned {planned / 1e9:.1f} GFLOP, counted {counter.get_total_flops() / 1e9:.1f}")
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_a_row_twice_as_long_takes_twice_the_activations_and_no_other_state() -> None:
    shape = shape_of(small_config())
    one, two = (rank_memory(shape, Setup(zero=2, dtype="bfloat16", world=2, positions=n)) for n in (512, 1024))
    assert two.activations == pytest.approx(2 * one.activations) and two.states == one.states


@pytest.mark.slow
def test_states_of_two_ranks_are_what_was_planned() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "cluster" / "measured.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 8
    for line in lines:
        held = state_memory(line["parameters"], zero=line["zero"], dtype=line["dtype"], world=2)
        print(
            f"ZeRO {line['zero']} {line['dtype']}: planned {held.states / 1e6:.1f} MB, "
            f"measured {line['most'] / 1e6:.1f} MB"
        )
        assert held.states == pytest.approx(line["most"], rel=0.03), line
