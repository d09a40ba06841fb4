"""AudioVAE's losses and discriminators: what they measure, and what they must not see."""

import torch

from model.codec.mel_distance import MelDistance, band_limit
from samples.fabricate import speech
from training.codec.config import DiscriminatorConfig, OptimizerConfig, VAETrainConfig
from training.codec.discriminators import Discriminators
from training.codec.losses import (
    ReconstructionLoss,
    adversarial_losses,
    discriminator_loss,
    kl_divergence,
    within_band,
)
from training.codec.step import adversarial_ramp, learning_rate

RATE = 48000


def audio(seconds: float = 0.32) -> torch.Tensor:
    return torch.from_numpy(speech(seconds=seconds, rate=RATE))[None]


def tone(hertz: float, level: float) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(15360) / RATE)[None]


def test_mel_distance() -> None:
    distance = MelDistance(RATE)
    x_BT = audio()
    assert float(distance(x_BT, x_BT)) == 0.0
    # Ten times the level is one unit of log10 in each of seven scales, where nothing touches the floor.
    noise_BT = torch.rand(1, 15360, generator=torch.Generator().manual_seed(0)) - 0.5
    narrow = MelDistance(RATE, num_mels=(5, 10), windows=(512, 1024))
    assert abs(float(narrow(noise_BT, noise_BT * 0.1)) - 2.0) < 1e-3
    assert float(distance(x_BT, x_BT * 0.5)) > float(distance(x_BT, x_BT * 0.9)) > 0


def test_bands_above_nyquist_do_not_count() -> None:
    distance = MelDistance(RATE)
    x_BT, high_BT = audio(), tone(15000, 0.3)
    full, narrow = torch.tensor([24000.0]), torch.tensor([8000.0])
    limited = [band_limit(x, narrow, RATE) for x in (x_BT, x_BT + high_BT)]
    # What is left in the band is fp32's rounding of a loud tone, next to bands that are almost silent.
    assert float(distance(*limited, narrow)) < 0.05 * float(distance(x_BT, x_BT + high_BT, full))


def test_no_gradient_from_above_the_source() -> None:
    """Losses and discriminators of a 16 kHz source pull at nothing above 8 kHz; those of a 48 kHz source do."""
    loss = ReconstructionLoss(VAETrainConfig(), RATE)
    judges = Discriminators(
        DiscriminatorConfig(periods=(3,), period_channels=2, windows=(512,), spectrum_channels=2), autocast=False
    )
    target_BT = audio()
    shares = {}
    for rate in (16000, 48000):
        decoded_BT = (target_BT + tone(15000, 0.1) + tone(3000, 0.01)).requires_grad_()
        rate_B = torch.tensor([rate])
        decoded_in_band_BT, target_in_band_BT = (within_band(x, rate_B, RATE) for x in (decoded_BT, target_BT))
        total = loss(decoded_in_band_BT, target_in_band_BT, rate_B / 2)["mel"]
        total = total + adversarial_losses(judges(target_in_band_BT), judges(decoded_in_band_BT))["feature"]
        (slope_BT,) = torch.autograd.grad(total, decoded_BT)
        power_F = torch.fft.rfft(slope_BT[0]).abs().square()
        edge = int(8000 / RATE * slope_BT.shape[1]) + 1
        shares[rate] = float(power_F[edge:].sum() / power_F.sum())
    assert shares[16000] < 1e-8
    assert shares[48000] > 0.01


def test_band_limit_leaves_the_band() -> None:
    low_BT, high_BT = tone(3000, 0.2), tone(11000, 0.2)
    rows_BT = torch.cat([low_BT + high_BT, low_BT + high_BT])
    found_BT = band_limit(rows_BT, torch.tensor([8000.0, 24000.0]), RATE)
    assert torch.allclose(found_BT[0], low_BT[0], atol=1e-3)
    assert torch.equal(found_BT[1], rows_BT[1])


def test_kl() -> None:
    zeros = torch.zeros(2, 4, 3)
    assert float(kl_divergence(zeros, zeros)) == 0.0
    mean_BDL, log_variance_BDL = torch.full((2, 4, 3), 0.7), torch.full((2, 4, 3), -1.0)
    ours = torch.distributions.Normal(mean_BDL, (0.5 * log_variance_BDL).exp())
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert torch.allclose(kl_divergence(mean_BDL, log_variance_BDL), expected)


def test_discriminators_learn() -> None:
    """A few steps separate speech from noise; the shapes fit lengths that periods do not divide."""
    torch.manual_seed(0)
    config = DiscriminatorConfig(periods=(2, 5), period_channels=2, windows=(512,), bands=(0.3,), spectrum_channels=2)
    judges = Discriminators(config, autocast=False)
    real_BT, decoded_BT = audio(0.1)[:, :4799], 0.05 * torch.randn(1, 4799)
    optimizer = torch.optim.Adam(judges.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        loss = discriminator_loss(judges(real_BT), judges(decoded_BT))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    losses_of_itself = adversarial_losses(judges(real_BT), judges(real_BT))
    assert float(losses_of_itself["feature"]) == 0.0 and float(losses_of_itself["adversarial"]) > 0


def test_schedules() -> None:
    config = DiscriminatorConfig(start=10, ramp=4)
    assert [adversarial_ramp(index, config) for index in (9, 10, 12, 14, 100)] == [0.0, 0.2, 0.6, 1.0, 1.0]
    optimizer = OptimizerConfig(learning_rate=1e-3, discriminator_learning_rate=5e-4, warmup_steps=9, decay=0.5)
    assert learning_rate(0, optimizer) == 1e-4
    assert learning_rate(20, optimizer) == 1e-3 * 0.5**20
    assert learning_rate(20, optimizer, discriminator=True) == 5e-4 * 0.5**20
