"""FLOPs of a row: what PyTorch counts while it computes one."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.lora import LoRAConfig, add_lora
from model.presets import preset
from model.sequence.layouts import Layout, arrange
from model.sequence.packing import PackedBatch, pack
from model.voxcpm2 import VoxCPM2
from training.curriculum.plan.flops import RowFlops, peak_flops

CONFIG = preset("tiny")
SHAPE = (CONFIG.patch_size, CONFIG.feat_dim)
SAMPLES = [(3, 0, 5), (2, 4, 3), (6, 2, 4)]
"""Text tokens, reference patches, target patches."""


def sample(num_text: int, num_reference: int, num_target: int) -> Layout:
    return arrange(
        list(range(200, 200 + num_text)),
        reference_RPD=torch.randn(num_reference, *SHAPE) if num_reference else None,
        target_GPD=torch.randn(num_target, *SHAPE),
        closed=True,
        patch_shape=SHAPE,
        max_length=CONFIG.max_length,
    )


def counted(model: VoxCPM2, batch: PackedBatch) -> dict[str, int]:
    """FLOPs forward and backward, by kind of operation."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's fused kernel is one that PyTorch does not count
        model(batch, generator=torch.Generator().manual_seed(0)).total().backward()
    return {str(operation): flops for operation, flops in counter.get_flop_counts()["Global"].items()}


def pairs_that_no_one_needs(batch: PackedBatch) -> int:
    """PyTorch counts a causal attention whole; nobody sees the future."""
    return sum(length * length - length * (length + 1) // 2 for length in batch.documents.lengths)


@pytest.fixture
def model() -> VoxCPM2:
    torch.manual_seed(0)
    return VoxCPM2(CONFIG)


@pytest.fixture
def batch() -> PackedBatch:
    torch.manual_seed(1)
    return pack([sample(*sizes) for sizes in SAMPLES])


def test_what_is_counted_is_what_is_computed(model: VoxCPM2, batch: PackedBatch) -> None:
    flops = RowFlops.of(model)
    found = counted(model, batch)
    assert sum(found.values()) == flops(batch) + flops.pair * pairs_that_no_one_needs(batch)
    pairs = sum(length * (length + 1) // 2 for length in batch.documents.lengths)
    local = found["aten.bmm"] - flops.pair * (pairs + pairs_that_no_one_needs(batch))
    assert found["aten.bmm"] > 0 and local > 0, "attention is part of both"


def test_what_is_frozen_has_no_gradient(model: VoxCPM2, batch: PackedBatch) -> None:
    """LoRA everywhere: not exact, since the first frozen layers pass no gradient on, but nowhere near full training."""
    whole = RowFlops.of(model)(batch)
    add_lora(model, LoRAConfig(enable_lm=True, enable_dit=True, enable_proj=True))
    found, computed = RowFlops.of(model), sum(counted(model, batch).values())
    assert found(batch) == pytest.approx(computed - found.pair * pairs_that_no_one_needs(batch), rel=0.05)
    assert found(batch) < 0.8 * whole


def test_a_longer_document_costs_more_than_its_share() -> None:
    flops = RowFlops.of(VoxCPM2(CONFIG))
    one, two = pack([sample(40, 0, 40)]), pack([sample(20, 0, 20), sample(20, 0, 20)])
    lengths = [one.documents.lengths, two.documents.lengths]
    pairs = [sum(math.comb(length + 1, 2) for length in some) for some in lengths]
    rest = [flops(b) - flops.pair * p for b, p in zip((one, two), pairs, strict=True)]
    assert pairs[0] > 2 * pairs[1] * 0.95 and rest[0] == pytest.approx(rest[1], rel=0.02)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_known_peaks(name: str, tera: float | None) -> None:
    assert peak_flops(name) == (None if tera is None else tera * 1e12)
