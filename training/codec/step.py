"""One step of AudioVAE's training: the discriminators are updated, then the autoencoder.

Losses on the decoded audio are differentiated with respect to that audio first, and that gradient is passed on to the
autoencoder: the discriminators' own weights are never part of the autoencoder's backward pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.codec.audio_vae import AudioVAE
from training.codec.config import DiscriminatorConfig, OptimizerConfig, VAETrainConfig
from training.codec.crops import Crops
from training.codec.discriminators import Discriminators
from training.codec.engine import Engine
from training.codec.losses import (
    ReconstructionLoss,
    adversarial_losses,
    discriminator_loss,
    kl_divergence,
    within_band,
)
from training.codec.model import Autoencoder, latent_noise, row_generators
from training.run.schedule import warmup_then_exponential
from training.run.world import World

AUTOENCODER, DISCRIMINATORS = "autoencoder", "discriminators"


@dataclass(frozen=True, slots=True)
class GanEngines:
    """The engines of the two networks; `discriminators` is None where no loss uses them."""

    autoencoder: Engine
    discriminators: Engine | None

    @property
    def vae(self) -> AudioVAE:
        """The AudioVAE inside the autoencoder."""
        assert isinstance(self.autoencoder.module, Autoencoder)
        return self.autoencoder.module.vae

    def by_name(self) -> dict[str, Engine]:
        """The engines that exist."""
        engines = {AUTOENCODER: self.autoencoder, DISCRIMINATORS: self.discriminators}
        return {name: engine for name, engine in engines.items() if engine is not None}


@dataclass(frozen=True, slots=True)
class StepResult:
    """Means over all ranks. `losses` by name, with the gradients' norms; empty where the step was skipped."""

    losses: dict[str, float]
    is_skipped: bool = False
    """A loss of some rank was not finite; no weight was changed on any rank."""


def make_discriminators(config: VAETrainConfig) -> Discriminators | None:
    """New ones, from the run's seed; None where no loss uses them."""
    if not config.adversarial:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        return Discriminators(config.discriminator, autocast=config.precision == "bf16")


def make_engines(
    config: VAETrainConfig, autoencoder: Autoencoder, discriminators: Discriminators | None, world: World
) -> GanEngines:
    """Engines around the modules as they are."""
    optimizer, rows = config.optimizer, config.rows // world.size

    def engine(module: nn.Module, clip: float) -> Engine:
        module.to(world.device)
        return Engine(module, world=world, zero=config.engine.zero, betas=optimizer.betas, clip=clip, rows=rows)

    return GanEngines(
        engine(autoencoder, optimizer.clip),
        None if discriminators is None else engine(discriminators, optimizer.discriminator_clip),
    )


class Stepper:
    """Makes steps. `loss` holds the reconstruction losses on this rank's device."""

    def __init__(self, config: VAETrainConfig, engines: GanEngines, world: World) -> None:
        self.config, self.engines, self.world = config, engines, world
        self.rate_out = engines.vae.config.out_sample_rate
        self.loss = ReconstructionLoss(config, self.rate_out).to(world.device)

    def step(self, index: int, crops: Crops) -> StepResult:
        """Step `index`, from 0, on this rank's `crops`; the other ranks call it with theirs."""
        config, device, rows = self.config, self.world.device, len(crops.input_BT)
        crops = crops.to(device)
        first = index * config.rows + self.world.rank * rows
        generators = row_generators(config.seed, first, rows)
        vae = self.engines.vae
        noise_BDL = latent_noise(generators, vae.config.latent_dim, crops.input_BT.shape[1] // vae.hop).to(device)
        decoded_BT, mean_BDL, log_variance_BDL = self.engines.autoencoder(
            crops.input_BT, crops.rate_B, noise_BDL, generators if vae.config.use_noise_block else None
        )
        leaf_BT = decoded_BT.detach().requires_grad_()
        decoded_in_band_BT = within_band(leaf_BT, crops.rate_B, self.rate_out)
        target_in_band_BT = within_band(crops.target_BT, crops.rate_B, self.rate_out)
        losses = self.loss(decoded_in_band_BT, target_in_band_BT, crops.rate_B / 2)
        kl = kl_divergence(mean_BDL, log_variance_BDL)
        is_finite = torch.stack([*losses.values(), kl]).detach().isfinite().all()
        if self.world.any(not is_finite):
            return StepResult({}, is_skipped=True)

        of_discriminators: dict[str, Tensor] = {}
        norms: dict[str, float] = {}
        ramp = adversarial_ramp(index, config.discriminator)
        if self.engines.discriminators is not None and index >= config.discriminator.start:
            loss, norm = self._update_discriminators(index, target_in_band_BT, decoded_in_band_BT.detach())
            of_discriminators, norms = {"discriminator": loss}, {"discriminator_gradient_norm": norm}
            losses |= self._adversarial_losses(target_in_band_BT, decoded_in_band_BT)
        weights = config.loss.model_dump(include={"mel", "waveform", "adversarial", "feature"})
        weights |= {name: weights[name] * ramp for name in ("adversarial", "feature")}
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        (gradient_BT,) = torch.autograd.grad(total, leaf_BT)
        norm = self.engines.autoencoder.update(
            (decoded_BT * gradient_BT).sum() + config.loss.kl * kl, learning_rate(index, config.optimizer)
        )
        losses |= {"kl": kl, "total": total + config.loss.kl * kl} | of_discriminators
        return StepResult(self.world.means(losses) | norms | {"gradient_norm": norm})

    def _update_discriminators(self, index: int, target_BT: Tensor, decoded_BT: Tensor) -> tuple[Tensor, float]:
        """(loss of this rank, norm of the gradient)."""
        engine, config = self.engines.discriminators, self.config
        assert engine is not None
        # Rows of both in one pass: DeepSpeed wants one forward pass for each backward pass.
        outputs = engine(torch.cat([target_BT, decoded_BT]))
        rows = len(target_BT)
        real = [[output[:rows] for output in member] for member in outputs]
        decoded = [[output[rows:] for output in member] for member in outputs]
        loss = discriminator_loss(real, decoded)
        rate = learning_rate(index - config.discriminator.start, config.optimizer, discriminator=True)
        return loss.detach(), engine.update(loss, rate)

    def _adversarial_losses(self, target_BT: Tensor, decoded_BT: Tensor) -> dict[str, Tensor]:
        assert self.engines.discriminators is not None
        module = self.engines.discriminators.module
        with torch.no_grad():
            real = module(target_BT)
        return adversarial_losses(real, module(decoded_BT))


def adversarial_ramp(index: int, config: DiscriminatorConfig) -> float:
    """Factor on the discriminators' losses for the autoencoder at step `index`, 0 to 1."""
    since = index - config.start
    if since < 0:
        return 0.0
    return min(1.0, (since + 1) / (config.ramp + 1))


def learning_rate(index: int, config: OptimizerConfig, *, discriminator: bool = False) -> float:
    """Adam's learning rate at step `index` of that network."""
    peak = config.discriminator_learning_rate if discriminator else config.learning_rate
    return warmup_then_exponential(index, peak=peak, warmup_steps=config.warmup_steps, decay=config.decay)
