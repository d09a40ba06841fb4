"""Conditional flow matching on target patches (report 3.5, spec 3.3): t = 1 is noise, t = 0 is data.

Random numbers are drawn apart from their use: a test hands in those of another program, a trainer its own generator.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.config import FlowConfig
from model.layers.locdit import LocDiT


@dataclass(frozen=True)
class FlowNoise:
    """Random numbers of G target patches, uniform on [0, 1) or standard normal, before the configuration is applied."""

    keep_G: Tensor
    """Uniform; the guidance's dropout keeps mu above `training_cfg_rate`."""
    noisy_condition_G: Tensor
    """Uniform; chooses the patches whose condition gets noise."""
    condition_noise_GPD: Tensor
    """Normal."""
    first_time_G: Tensor
    """Normal for "log-norm" times, uniform for "uniform" ones."""
    second_time_G: Tensor
    differ_G: Tensor
    """Uniform; in mean mode chooses the patches with r < t."""
    noise_GPD: Tensor
    """Normal; the start of the path."""


def draw_flow_noise(clean_GPD: Tensor, config: FlowConfig, *, generator: torch.Generator | None = None) -> FlowNoise:
    """Fresh random numbers for these patches, from `generator` (of their device) or the global one.

    They have the patches' dtype except the first two, which are compared with probabilities: in bf16, zero alone would
    come once in 256.
    """
    rows = clean_GPD.shape[0]
    device, dtype = clean_GPD.device, clean_GPD.dtype

    def uniform(dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.rand(rows, device=device, dtype=dtype, generator=generator)

    def normal() -> Tensor:
        return torch.randn(clean_GPD.shape, device=device, dtype=dtype, generator=generator)

    def time() -> Tensor:
        if config.t_scheduler != "log-norm":
            return uniform(dtype)
        return torch.randn(rows, device=device, dtype=dtype, generator=generator)

    return FlowNoise(uniform(), uniform(), normal(), time(), time(), uniform(dtype), normal())


def times(flow_noise: FlowNoise, config: FlowConfig, *, progress: float, mean_mode: bool) -> tuple[Tensor, Tensor]:
    """(r, t), [G] each, 0 <= r <= t <= 1. Outside mean mode r = t.

    Args:
        progress: share of the training done, 0 to 1; moves the share of patches with r < t through its range.
    """
    first_G, second_G = flow_noise.first_time_G, flow_noise.second_time_G
    if config.t_scheduler == "log-norm":
        first_G, second_G = torch.sigmoid(first_G - 0.4), torch.sigmoid(second_G - 0.4)
    if not mean_mode:
        return second_G, second_G
    start, end = config.ratio_r_neq_t_range
    # Where they do not differ both are the second draw, not the later one: t keeps the scheduler's distribution.
    first_G = torch.where(flow_noise.differ_G < start + progress * (end - start), first_G, second_G)
    return torch.minimum(first_G, second_G), torch.maximum(first_G, second_G)


def flow_error(
    estimator: LocDiT,
    clean_GPD: Tensor,
    mu_GMC: Tensor,
    condition_GPD: Tensor,
    flow_noise: FlowNoise,
    config: FlowConfig,
    *,
    mean_mode: bool,
    progress: float = 0.0,
) -> Tensor:
    """Squared error of the velocity, mean over channels, [G, P] fp32.

    Args:
        clean_GPD: target patches.
        mu_GMC: TSLM's and RALM's projections, [G, 2, C].
        condition_GPD: previous patches.
        mean_mode: MeanFlow's target, by a forward derivative of the estimator along the path.
        progress: share of the training done, 0 to 1.
    """
    if config.training_cfg_rate:
        mu_GMC = mu_GMC * (flow_noise.keep_G > config.training_cfg_rate)[:, None, None]
    if config.noise_cond_scale:
        start, end = config.noise_cond_prob_range
        noisy_G = flow_noise.noisy_condition_G > 1 - (start + progress * (end - start))
        condition_GPD = (
            condition_GPD + noisy_G[:, None, None] * flow_noise.condition_noise_GPD * config.noise_cond_scale
        )
    r_G, t_G = times(flow_noise, config, progress=progress, mean_mode=mean_mode)
    t_G11 = t_G[:, None, None]
    path_GPD = (1 - t_G11) * clean_GPD + t_G11 * flow_noise.noise_GPD
    velocity_GPD = flow_noise.noise_GPD - clean_GPD

    def predict(path_GPD: Tensor, r_G: Tensor, t_G: Tensor) -> Tensor:
        time_GC = estimator.time_token(t_G, t_G - r_G, dtype=path_GPD.dtype)
        predicted_GPD: Tensor = estimator(path_GPD, mu_GMC, time_GC, condition_GPD)
        return predicted_GPD

    if mean_mode:
        along = (velocity_GPD, torch.zeros_like(r_G), torch.ones_like(t_G))
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward derivative
            predicted_GPD, slope_GPD, *_ = torch.func.jvp(predict, (path_GPD, r_G, t_G), along)
        target_GPD = velocity_GPD - ((t_G - r_G)[:, None, None] * slope_GPD).detach()
    else:
        predicted_GPD, target_GPD = predict(path_GPD, r_G, t_G), velocity_GPD
    error_GP: Tensor = (predicted_GPD.float() - target_GPD.float()).square().mean(dim=-1)
    return error_GP
