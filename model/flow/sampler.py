"""From noise to a patch: Euler steps on a swayed time grid, guided by CFG-Zero* (report 3.7, spec 4.3).

Different here: the times, which no request changes, become tokens in one call; rows of a batch may have their own
guidance; steps whose velocity is zero by definition are not computed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.layers.locdit import LocDiT

ZERO_INIT_SHARE = 0.04
"""CFG-Zero*: this share of the grid, and at least one step, has velocity zero."""


@dataclass(frozen=True)
class Schedule:
    """Euler's steps that move the patch: their times (1 is noise) and their lengths, as numbers and as a tensor."""

    times_S: Tensor
    steps: tuple[float, ...]
    spans_S: Tensor


def swayed_grid(num_steps: int, *, dtype: torch.dtype, sway: float = 1.0) -> Tensor:
    """Times from 1 to 0, [num_steps + 1], denser near the noise. Computed in `dtype`, as the released model does."""
    grid_S = torch.linspace(1, 0, num_steps + 1, dtype=dtype)
    return grid_S + sway * (torch.cos(torch.pi / 2 * grid_S) - 1 + grid_S)


def schedule(num_steps: int, *, dtype: torch.dtype, device: torch.device | str, zero_star: bool = True) -> Schedule:
    """The steps of `num_steps` (>= 1) that are left without CFG-Zero*'s first ones; all of them if not `zero_star`."""
    grid_S = swayed_grid(num_steps, dtype=dtype)
    skipped = max(1, int((num_steps + 1) * ZERO_INIT_SHARE)) if zero_star else 0
    time, step = grid_S[0], grid_S[0] - grid_S[1]
    times, steps = [], []
    for number in range(1, num_steps + 1):
        if number > skipped:
            times.append(time)
            steps.append(step.item())
        time = time - step
        if number < num_steps:
            # The released model measures the next step from the running time, whose rounding bf16 shows.
            step = time - grid_S[number + 1]
    times_S = torch.stack(times) if times else grid_S[:0]
    return Schedule(times_S.to(device), tuple(steps), torch.tensor(steps, dtype=dtype, device=device))


def guide(
    conditional_RPD: Tensor, unconditional_RPD: Tensor, guidance_R11: Tensor | float, *, zero_star: bool
) -> Tensor:
    """The guided velocity. With `zero_star` the unconditional one is first scaled to its projection."""
    if zero_star:
        flat_RN, base_RN = conditional_RPD.flatten(1), unconditional_RPD.flatten(1)
        scale_R1 = (flat_RN * base_RN).sum(1, keepdim=True) / (base_RN.square().sum(1, keepdim=True) + 1e-8)
        unconditional_RPD = unconditional_RPD * scale_R1[:, :, None]
    # A weight a row is fp32 and stays so in the product, so that the result equals that of one weight for all in bf16.
    apart_RPD = (guidance_R11 * (conditional_RPD - unconditional_RPD)).to(conditional_RPD.dtype)
    return unconditional_RPD + apart_RPD


@torch.no_grad()
def sample(
    estimator: LocDiT,
    mu_RMC: Tensor,
    condition_RPD: Tensor,
    noise_RPD: Tensor,
    plan: Schedule,
    *,
    guidance: Tensor | float = 2.0,
    zero_star: bool = True,
    mean_mode: bool = False,
) -> Tensor:
    """One patch a request, [R, P, D], in the noise's dtype.

    Args:
        mu_RMC: TSLM's and RALM's projections, [R, 2, C].
        condition_RPD: the previous patches.
        noise_RPD: the start, standard normal.
        guidance: one weight, or one a request [R]; 2.0 in the report, 1.0 to 3.0 in practice.
        mean_mode: the estimator was trained with MeanFlow and takes the length of each step.
    """
    rows = noise_RPD.shape[0]
    guidance_R11 = guidance.float()[:, None, None] if isinstance(guidance, Tensor) else guidance
    both_mu = torch.cat([mu_RMC, torch.zeros_like(mu_RMC)])
    both_conditions = torch.cat([condition_RPD, condition_RPD])
    spans_S = plan.spans_S if mean_mode else torch.zeros_like(plan.spans_S)
    tokens_SC = estimator.time_token(plan.times_S, spans_S, dtype=noise_RPD.dtype)
    patch_RPD = noise_RPD
    for token_1C, step in zip(tokens_SC[:, None].unbind(), plan.steps, strict=True):  # there may be no steps
        velocity = estimator(torch.cat([patch_RPD, patch_RPD]), both_mu, token_1C, both_conditions)
        guided_RPD = guide(velocity[:rows], velocity[rows:], guidance_R11, zero_star=zero_star)
        patch_RPD = patch_RPD - step * guided_RPD
    return patch_RPD


def start_noise(patch_size: int, feat_dim: int, *, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """The start of one request's next patch, [1, P, D] on the generator's device.

    Drawn channel by channel as the released model does, so that a seed gives the same noise there and here.
    """
    shape = (1, feat_dim, patch_size)
    return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype).transpose(1, 2)
