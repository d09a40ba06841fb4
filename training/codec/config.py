"""Configuration of AudioVAE's training; recipes are in `training/recipes/codec/*.yaml`."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from model.codec.mel_distance import NUM_MELS, WINDOWS
from model.config import AudioVAEConfig
from model.presets import Preset
from training.run.recipes import find_recipe
from voxmill.core.config import Config, StoredPath, load_config
from voxmill.core.errors import UserError
from voxmill.core.tracking import wrong_uri

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "codec"


class ModelConfig(Config):
    """`preset` gives config.json; `audio_vae` replaces its AudioVAE; `start_from`: weights of a checkpoint folder."""

    preset: Preset = "tiny"
    """Sizes of the model: tiny, small, voxcpm2."""
    audio_vae: AudioVAEConfig | None = None
    """Sizes that replace the preset's AudioVAE, as `audio_vae_config` of config.json has them; null keeps those."""
    start_from: StoredPath | None = None
    """Checkpoint folder whose weights training starts from; null starts from new weights."""
    log_variance: float = 0.0
    """Log variance of the latents before training; low, the decoder gets the encoder's signal from the first step."""


class DataConfig(Config):
    """Crops. `held_out` names recordings; without names, `held_out_share` of the recordings are held out."""

    seconds: float = Field(0.96, gt=0)
    """Length of a training crop, in seconds."""
    gain_db: float = Field(6.0, ge=0, le=40)
    """Crops are made louder or quieter by up to this many dB, at random."""
    held_out: tuple[str, ...] = ()
    """Recordings held out for validation, by name."""
    held_out_share: float = Field(0.05, gt=0, lt=1)
    """Share of the recordings held out (0..1) where `held_out` names none."""
    readers: int = Field(2, ge=1, le=64)
    """Threads that read ahead on each rank; their number does not change what is read."""


class LossConfig(Config):
    """Weights of the loss terms (spec 6.1: the known part of the first AudioVAE's recipe)."""

    mel: float = Field(15.0, ge=0)
    """Weight of the multi-scale mel distance."""
    feature: float = Field(2.0, ge=0)
    """Weight of feature matching."""
    adversarial: float = Field(1.0, ge=0)
    """Weight of the adversarial loss."""
    kl: float = Field(5e-5, ge=0)
    """Weight of the latents' KL divergence."""
    waveform: float = Field(0.0, ge=0)
    """Weight of the waveform's L1 distance."""
    num_mels: tuple[int, ...] = NUM_MELS
    """Mel bands at each scale of the mel distance."""
    mel_windows: tuple[int, ...] = WINDOWS
    """FFT windows of the scales, in samples."""

    @model_validator(mode="after")
    def _scales_fit(self) -> "LossConfig":
        if len(self.num_mels) != len(self.mel_windows):
            raise ValueError(f"num_mels has {len(self.num_mels)} scales, mel_windows {len(self.mel_windows)}")
        return self


class DiscriminatorConfig(Config):
    """Trained from step `start` on; their part in the autoencoder's loss grows over `ramp` steps from there."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Periods, in samples, of the waveform discriminators."""
    period_channels: int = Field(32, ge=1)
    """Channels of the first layer of a waveform discriminator."""
    windows: tuple[int, ...] = (2048, 1024, 512)
    """FFT windows, in samples, of the spectrum discriminators."""
    bands: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    """Borders of the frequency bands of a spectrum discriminator, as shares of the spectrum (0..1)."""
    spectrum_channels: int = Field(32, ge=1)
    """Channels of a spectrum discriminator."""
    start: int = Field(0, ge=0)
    """Step from which the discriminators are trained."""
    ramp: int = Field(0, ge=0)
    """Steps over which their part in the generator's loss grows to its full weight."""

    @model_validator(mode="after")
    def _bands_rise(self) -> "DiscriminatorConfig":
        if not self.periods and not self.windows:
            raise ValueError("periods and windows are both empty; set loss.adversarial and loss.feature to 0 instead")
        edges = [0.0, *self.bands, 1.0]
        if any(a >= b for a, b in zip(edges[:-1], edges[1:], strict=True)):
            raise ValueError(f"bands must rise between 0 and 1, found {list(self.bands)}")
        return self


class OptimizerConfig(Config):
    """Adam for each network: linear warm-up over `warmup_steps`, then a decay by the factor `decay` a step.

    There is no weight decay: under weight norm a weight's length means nothing, and the condition of a sample rate that
    the data lacks would fade.
    """

    renamed: ClassVar[dict[str, str]] = {
        "rate": "learning_rate",
        "discriminator_rate": "discriminator_learning_rate",
        "warmup": "warmup_steps",
    }

    learning_rate: float = Field(1e-4, gt=0)
    """Highest learning rate of the autoencoder."""
    discriminator_learning_rate: float = Field(1e-4, gt=0)
    """Highest learning rate of the discriminators."""
    betas: tuple[float, float] = (0.8, 0.99)
    """Adam's decay rates of the first and second moment."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rates rise from 0."""
    decay: float = Field(0.999996, gt=0, le=1)
    """Factor on the learning rates at every step."""
    clip: float = Field(1000.0, gt=0)
    """Largest norm of the autoencoder's gradient."""
    discriminator_clip: float = Field(10.0, gt=0)
    """Largest norm of the discriminators' gradient."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights, which are validated and exported; lower in the first steps."""


class EngineConfig(Config):
    """DeepSpeed."""

    zero: Literal[1, 2] = 1
    """DeepSpeed's ZeRO stage: 1 shards optimizer states over the ranks, 2 gradients, too."""


class RunConfig(Config):
    """Length of the run, when it saves and reports. Only `steps` changes the result; all may change at a resume."""

    steps: int = Field(400_000, ge=1)
    """Steps of the whole run."""
    max_minutes: float | None = Field(None, gt=0)
    """Minutes after which this process saves and ends the run; null for no limit."""
    log_every: int = Field(10, ge=1)
    """Steps between two lines of metrics."""
    validate_every: int = Field(1000, ge=1)
    """Steps between two validations."""
    validate_crops: int = Field(32, ge=1)
    """Held-out crops scored at each validation."""
    listen: int = Field(4, ge=0)
    """Held-out crops kept as audio and mel pictures at each validation."""
    save_every: int = Field(1000, ge=1)
    """Steps between two checkpoints."""
    keep: int = Field(2, ge=1)
    """Newest sound checkpoints that stay, and the very newest; those saved among skipped steps are not sound."""
    hang_seconds: float | None = Field(900, gt=0)
    """Seconds without a finished step after which the run ends itself; null: never."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where training runs: auto, cpu or cuda."""
    tracking_uri: str | None = None
    """MLflow server or database; null: MLFLOW_TRACKING_URI, or a database in OUT; `none`: OUT/metrics.jsonl only."""
    experiment: str = "audio-vae"
    """Name of the MLflow experiment."""


class VAETrainConfig(Config):
    """A recipe of AudioVAE's training. `rows` counts crops over all ranks together."""

    renamed: ClassVar[dict[str, str]] = {"batch": "rows", "run.zero_stage": "engine.zero"}

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    engine: EngineConfig = EngineConfig()
    run: RunConfig = RunConfig()
    rows: int = Field(16, ge=1)
    """Crops of a step, over all ranks together."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Products under autocast in bf16; weights, gradients, optimizers, spectra and losses are fp32 in both."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of new weights, crops and noise."""

    @property
    def adversarial(self) -> bool:
        """Whether there are discriminators at all."""
        return self.loss.adversarial > 0 or self.loss.feature > 0


def read_recipe(name: str | None, overrides: list[str]) -> VAETrainConfig:
    """The recipe in a YAML file, or the one of that name that comes with voxmill; None: the defaults.

    Raises:
        UserError: no such recipe, an unknown key, a wrong value.
    """
    config = load_config(VAETrainConfig, None if name is None else find_recipe(name, RECIPES), overrides)
    if wrong := wrong_uri(config.run.tracking_uri):
        raise UserError(f"run.tracking_uri: {wrong}")
    return config
