"""Configuration of AudioVAE's training; recipes are in `training/recipes/codec/*.yaml`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from model.codec.mel_distance import NUM_MELS, WINDOWS
from model.config import AudioVAEConfig
from model.presets import Preset
from voxmill.core.config import Config

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "codec"


class ModelConfig(Config):
    """`preset` gives config.json; `audio_vae` replaces its AudioVAE; `start_from`: weights of a checkpoint folder."""

    preset: Preset = "tiny"
    audio_vae: AudioVAEConfig | None = None
    start_from: Path | None = None
    log_variance: float = 0.0
    """The latents' log variance before training: a low one lets the decoder hear the encoder from the first step."""


class DataConfig(Config):
    """Crops. `held_out` names recordings; without names, `held_out_share` of the recordings are held out."""

    seconds: float = Field(0.96, gt=0)
    gain_db: float = Field(6.0, ge=0, le=40)
    held_out: tuple[str, ...] = ()
    held_out_share: float = Field(0.05, gt=0, lt=1)
    readers: int = Field(2, ge=1, le=64)
    """Threads that read ahead on each rank; what they read does not hang on their number."""


class LossConfig(Config):
    """Weights of the loss terms (spec 6.1: what is known of the first AudioVAE's recipe)."""

    mel: float = Field(15.0, ge=0)
    feature: float = Field(2.0, ge=0)
    adversarial: float = Field(1.0, ge=0)
    kl: float = Field(5e-5, ge=0)
    waveform: float = Field(0.0, ge=0)
    num_mels: tuple[int, ...] = NUM_MELS
    mel_windows: tuple[int, ...] = WINDOWS

    @model_validator(mode="after")
    def _scales_fit(self) -> "LossConfig":
        if len(self.num_mels) != len(self.mel_windows):
            raise ValueError(f"num_mels has {len(self.num_mels)} scales, mel_windows {len(self.mel_windows)}")
        return self


class DiscriminatorConfig(Config):
    """They learn from step `start` on; their part in the generator's loss grows over `ramp` steps from there."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: int = Field(32, ge=1)
    windows: tuple[int, ...] = (2048, 1024, 512)
    bands: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    """Where the spectrum is divided, as shares of it."""
    spectrum_channels: int = Field(32, ge=1)
    start: int = Field(0, ge=0)
    ramp: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _bands_rise(self) -> "DiscriminatorConfig":
        if not self.periods and not self.windows:
            raise ValueError("periods and windows are both empty; set loss.adversarial and loss.feature to 0 instead")
        edges = [0.0, *self.bands, 1.0]
        if any(a >= b for a, b in zip(edges[:-1], edges[1:], strict=True)):
            raise ValueError(f"bands must rise between 0 and 1, found {list(self.bands)}")
        return self


class OptimizerConfig(Config):
    """Adam for each side. The rate climbs over `warmup` steps and then shrinks by `decay` a step.

    There is no weight decay: under weight norm a weight's length means nothing, and the condition of a sample rate that
    the data lacks would fade.
    """

    rate: float = Field(1e-4, gt=0)
    discriminator_rate: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.8, 0.99)
    warmup: int = Field(0, ge=0)
    decay: float = Field(0.999996, gt=0, le=1)
    clip: float = Field(1000.0, gt=0)
    discriminator_clip: float = Field(10.0, gt=0)
    ema: float = Field(0.999, ge=0, lt=1)
    """What the averaged weights keep of themselves a step, once they have seen enough steps for it."""


class RunConfig(Config):
    """How the run goes; nothing here but `steps` changes what is learnt, and a run may go on with other values."""

    steps: int = Field(400_000, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    """Ends the run, whole, after so much wall-clock time in this process."""
    log_every: int = Field(10, ge=1)
    validate_every: int = Field(1000, ge=1)
    validate_crops: int = Field(32, ge=1)
    listen: int = Field(4, ge=0)
    """So many held-out crops are kept as audio and mel pictures at each validation."""
    save_every: int = Field(1000, ge=1)
    keep: int = Field(2, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    zero_stage: Literal[1, 2] = 1
    tracking_uri: str | None = None
    """MLflow server or database; None: MLFLOW_TRACKING_URI, or a database in OUT. "none": only OUT/metrics.jsonl."""
    experiment: str = "audio-vae"


class VAETrainConfig(Config):
    """All of it. `batch` counts crops over all ranks together."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()
    batch: int = Field(16, ge=1)
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: products under autocast. Weights, gradients, optimizers, spectra and losses are fp32 in both."""
    seed: int = Field(0, ge=0, lt=2**32)

    @property
    def adversarial(self) -> bool:
        """Whether there are discriminators at all."""
        return self.loss.adversarial > 0 or self.loss.feature > 0
