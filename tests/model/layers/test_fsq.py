"""Finite scalar quantisation."""

import pytest
import torch

from model.layers.fsq import FSQ


def bare(scale: int, latent: int = 1) -> FSQ:
    """An FSQ whose projections change nothing."""
    layer = FSQ(latent, latent=latent, scale=scale)
    with torch.no_grad():
        for linear in (layer.in_proj, layer.out_proj):
            linear.weight.copy_(torch.eye(latent))
            linear.bias.zero_()
    return layer


@pytest.mark.parametrize(("scale", "levels"), [(1, 3), (4, 9), (9, 19)])
@torch.no_grad()
def test_levels(scale: int, levels: int) -> None:
    """Multiples of 1 / scale from -1 to 1: nine is nineteen levels."""
    found = bare(scale)(torch.linspace(-8, 8, 4001)[:, None])
    assert len(found.unique()) == levels
    assert torch.equal(found.unique(), torch.arange(-scale, scale + 1) / scale)


@torch.no_grad()
def test_halves_round_to_even() -> None:
    wanted = {0.5: 0.0, 1.5: 2.0, 2.5: 2.0, 3.5: 4.0, -0.5: 0.0, -1.5: -2.0, -2.5: -2.0, -3.5: -4.0}
    layer, met = bare(4).double(), []
    for half, rounded in wanted.items():
        hidden = torch.atanh(torch.tensor([[half / 4]], dtype=torch.float64))
        if torch.tanh(hidden).item() == half / 4:  # not every half comes back from atanh to the last bit
            met.append(half)
            assert layer(hidden).item() * 4 == rounded
    assert len(met) >= 2


def test_gradient_goes_straight_through_the_rounding() -> None:
    layer = bare(9)
    hidden = torch.tensor([[0.3], [-1.2], [0.0]], requires_grad=True)
    layer(hidden).sum().backward()
    assert hidden.grad is not None and torch.allclose(hidden.grad, 1 - torch.tanh(hidden.detach()) ** 2)
    # The values themselves are rounded in training as at inference.
    with torch.no_grad():
        at_inference = layer(hidden)
    assert torch.allclose(layer(hidden), at_inference, atol=1e-7)
