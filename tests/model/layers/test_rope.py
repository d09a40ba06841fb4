"""Rotary positions, longrope factors, and stacks without positions."""

import math

import pytest
import torch

from model.config import LanguageModelConfig, RopeScaling
from model.layers.attention import Bidirectional, Documents, Packed
from model.layers.rope import RotaryTable, rotary_table, rotate
from model.layers.transformer import MiniCPM

SHORT, LONG = (1.0, 1.5, 2.0, 4.0), (2.0, 3.0, 5.0, 8.0)


def config(*, longest: int = 64, original: int = 64, no_rope: bool = False) -> LanguageModelConfig:
    return LanguageModelConfig(
        hidden_size=16,
        intermediate_size=24,
        max_position_embeddings=longest,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=2,
        vocab_size=0,
        use_mup=False,
        no_rope=no_rope,
        rope_scaling=RopeScaling(long_factor=LONG, short_factor=SHORT, original_max_position_embeddings=original),
    )


@pytest.mark.parametrize(("longest", "factors"), [(64, SHORT), (32, SHORT), (256, LONG)])
def test_angles_and_magnitude(longest: int, factors: tuple[float, ...]) -> None:
    """The configuration alone chooses the factors: a short table of a long model has the long ones."""
    cos_LD, sin_LD = rotary_table(config(longest=longest), length=7)
    magnitude = math.sqrt(1 + math.log(longest / 64) / math.log(64))
    for position in range(7):
        for pair in range(4):
            angle = position * 10000 ** (-2 * pair / 8) / factors[pair]
            for channel in (pair, pair + 4):
                assert cos_LD[position, channel].item() == pytest.approx(math.cos(angle) * magnitude, abs=1e-6)
                assert sin_LD[position, channel].item() == pytest.approx(math.sin(angle) * magnitude, abs=1e-6)


def test_rotation_turns_pairs_and_depends_on_distance_only() -> None:
    table = RotaryTable(config(), length=32)
    query, key = torch.randn(1, 1, 8), torch.randn(1, 1, 8)

    def score(query_at: int, key_at: int) -> float:
        turned = [rotate(x, table(torch.tensor([at]))) for x, at in ((query, query_at), (key, key_at))]
        return (turned[0] * turned[1]).sum().item()

    assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)
    assert torch.equal(rotate(query, table(torch.tensor([0]))), query)


def test_half_precision_is_turned_in_fp32() -> None:
    table = RotaryTable(config(), length=8).to(torch.bfloat16)
    heads = torch.randn(8, 2, 8).bfloat16()
    turned = rotate(heads, table.first(8))
    wanted = rotate(heads.float(), (table.cos_LD.float()[:, None], table.sin_LD.float()[:, None])).bfloat16()
    assert turned.dtype == torch.bfloat16 and torch.equal(turned, wanted)


def test_tables_are_no_part_of_a_checkpoint_and_come_back_after_meta() -> None:
    with torch.device("meta"):
        stack = MiniCPM(config())
    assert not [name for name in stack.state_dict() if "cos" in name or "sin" in name]
    stack.to_empty(device="cpu")
    assert stack.rotary is not None
    stack.rotary.fill()
    assert torch.equal(stack.rotary.cos_LD, RotaryTable(config(), length=stack.rotary.length).cos_LD)


@torch.no_grad()
def test_without_positions_only_the_mask_orders() -> None:
    """A bidirectional stack without RoPE cannot tell an order; with RoPE it can; a causal one always can."""
    tokens = torch.randn(1, 5, 16)
    order = torch.tensor([3, 0, 4, 1, 2])
    for no_rope in (True, False):
        stack = MiniCPM(config(no_rope=no_rope))
        moved = stack(tokens[:, order], Bidirectional())
        assert torch.allclose(moved, stack(tokens, Bidirectional())[:, order], atol=1e-5) == no_rope
        span = Packed(Documents((5,)))
        assert not torch.allclose(stack(tokens[0, order], span), stack(tokens[0], span)[order], atol=1e-3)
