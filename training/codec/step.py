"""One step of AudioVAE's training: the discriminators learn, then the autoencoder.

Losses on the made audio are taken to a gradient on that audio first, and that gradient goes on into the autoencoder: the
discriminators' own weights are never part of the autoencoder's backward pass.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.codec.audio_vae import AudioVAE
from training.codec.config import DiscriminatorConfig, OptimizerConfig, VAETrainConfig
from training.codec.crops import Crops
from training.codec.discriminators import Discriminators
from training.codec.engine import Engine, Place, agree, average
from training.codec.losses import (
    ReconstructionLoss,
    adversarial_losses,
    discriminator_loss,
    kl_divergence,
    within_band,
)
from training.codec.model import Autoencoder, latent_noise, row_generators


@dataclass
class Sides:
    """The two engines; `discriminators` None where no loss asks for them."""

    autoencoder: Engine
    discriminators: Engine | None

    @property
    def vae(self) -> AudioVAE:
        """What is trained."""
        assert isinstance(self.autoencoder.module, Autoencoder)
        return self.autoencoder.module.vae

    def named(self) -> dict[str, Engine]:
        """Those that are there, by name."""
        found = {"autoencoder": self.autoencoder, "discriminators": self.discriminators}
        return {name: engine for name, engine in found.items() if engine is not None}


def make_discriminators(config: VAETrainConfig) -> Discriminators | None:
    """New ones, from the run's seed; None where no loss asks for them."""
    if not config.adversarial:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        return Discriminators(config.discriminator, autocast=config.precision == "bf16")


def make_sides(
    config: VAETrainConfig, autoencoder: Autoencoder, discriminators: Discriminators | None, place: Place
) -> Sides:
    """Engines around the modules as they are."""
    optimizer, rows = config.optimizer, config.batch // place.ranks

    def engine(module: nn.Module, clip: float) -> Engine:
        module.to(place.device)
        return Engine(
            module, place=place, zero_stage=config.run.zero_stage, betas=optimizer.betas, clip=clip, rows=rows
        )

    return Sides(
        engine(autoencoder, optimizer.clip),
        None if discriminators is None else engine(discriminators, optimizer.discriminator_clip),
    )


class Stepper:
    """Makes steps. `loss` holds the reconstruction losses on this rank's device."""

    def __init__(self, config: VAETrainConfig, sides: Sides, place: Place) -> None:
        self.config, self.sides, self.place = config, sides, place
        self.rate_out = sides.vae.config.out_sample_rate
        self.loss = ReconstructionLoss(config, self.rate_out).to(place.device)

    def step(self, index: int, crops: Crops, stop: list[float]) -> tuple[dict[str, float], list[float]]:
        """(the batch's losses by name, `stop` as any rank wants it).

        A loss that is not finite on any rank leaves the weights as they are on all, and is told as `skipped` = 1.

        Args:
            index: of the step, from 0. crops: this rank's rows.
            stop: 1 where this rank wants something; ranks agree on the largest.
        """
        config, device, rows = self.config, self.place.device, len(crops.heard_BT)
        crops = crops.to(device)
        first = index * config.batch + self.place.rank * rows
        generators = row_generators(config.seed, first, rows)
        vae = self.sides.vae
        noise_BDL = latent_noise(generators, vae.config.latent_dim, crops.heard_BT.shape[1] // vae.hop).to(device)
        made_BT, mean_BDL, log_variance_BDL = self.sides.autoencoder(
            crops.heard_BT, crops.rate_B, noise_BDL, generators if vae.config.use_noise_block else None
        )
        leaf_BT = made_BT.detach().requires_grad_()
        made_in_BT = within_band(leaf_BT, crops.rate_B, self.rate_out)
        aim_in_BT = within_band(crops.aim_BT, crops.rate_B, self.rate_out)
        losses = self.loss(made_in_BT, aim_in_BT, crops.rate_B / 2)
        kl = kl_divergence(mean_BDL, log_variance_BDL)
        finite = all(math.isfinite(float(value.detach())) for value in (*losses.values(), kl))
        *stop, bad = agree(self.place, [*stop, 0.0 if finite else 1.0])
        if bad:
            return {"skipped": 1.0}, stop

        told = {}
        part = warm_up(index, config.discriminator)
        if self.sides.discriminators is not None and index >= config.discriminator.start:
            told = self._teach_discriminators(index, aim_in_BT, made_in_BT.detach())
            losses |= self._judge(aim_in_BT, made_in_BT)
        weights = config.loss.model_dump(include={"mel", "waveform", "adversarial", "feature"})
        weights |= {name: weights[name] * part for name in ("adversarial", "feature")}
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        (slope_BT,) = torch.autograd.grad(total, leaf_BT)
        norm = self.sides.autoencoder.update(
            (made_BT * slope_BT).sum() + config.loss.kl * kl, learning_rate(index, config.optimizer)
        )
        losses |= {"kl": kl, "total": total + config.loss.kl * kl}
        return average(self.place, losses) | told | {"gradient_norm": norm}, stop

    def _teach_discriminators(self, index: int, aim_BT: Tensor, made_BT: Tensor) -> dict[str, float]:
        engine, config = self.sides.discriminators, self.config
        assert engine is not None
        # Rows of both in one pass: DeepSpeed wants one forward pass for each backward pass.
        outputs = engine(torch.cat([aim_BT, made_BT]))
        rows = len(aim_BT)
        real = [[output[:rows] for output in member] for member in outputs]
        made = [[output[rows:] for output in member] for member in outputs]
        loss = discriminator_loss(real, made)
        rate = learning_rate(index - config.discriminator.start, config.optimizer, discriminator=True)
        norm = engine.update(loss, rate)
        return average(self.place, {"discriminator": loss}) | {"discriminator_gradient_norm": norm}

    def _judge(self, aim_BT: Tensor, made_BT: Tensor) -> dict[str, Tensor]:
        assert self.sides.discriminators is not None
        module = self.sides.discriminators.module
        with torch.no_grad():
            real = module(aim_BT)
        return adversarial_losses(real, module(made_BT))


def warm_up(index: int, config: DiscriminatorConfig) -> float:
    """The discriminators' part in the autoencoder's loss at step `index`, 0 to 1."""
    since = index - config.start
    if since < 0:
        return 0.0
    return min(1.0, (since + 1) / (config.ramp + 1))


def learning_rate(index: int, config: OptimizerConfig, *, discriminator: bool = False) -> float:
    """Adam's rate at step `index` of that side."""
    peak = config.discriminator_rate if discriminator else config.rate
    return peak * min(1.0, (index + 1) / (config.warmup + 1)) * config.decay**index
