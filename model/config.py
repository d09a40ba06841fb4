"""The released `config.json` of VoxCPM2, field for field.

A key that nobody reads is an error in a configuration that a user writes, as everywhere in voxmill. A released
`config.json` carries such keys (`mean_mode`), so `read_config` sets them aside and `write_config` puts them back.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from model.run_checkpoint import base_of
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import is_remote

Dtype = Literal["bfloat16", "bf16", "float16", "fp16", "float32", "fp32"]
LAST_SPECIAL_TOKEN = 104
"""The largest token id of `model.sequence.layouts`."""


class RopeScaling(Config):
    """Longrope: one divisor of the angle per pair of channels (head_dim / 2 of them)."""

    type: Literal["longrope"] = "longrope"
    long_factor: tuple[float, ...]
    short_factor: tuple[float, ...]
    original_max_position_embeddings: int = 32768


class LanguageModelConfig(Config):
    """A MiniCPM-4 stack: TSLM as it stands, the other stacks through `local_stack` and `residual_stack`."""

    bos_token_id: int = 1
    eos_token_id: int = 2
    hidden_size: int
    intermediate_size: int
    max_position_embeddings: int
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling
    kv_channels: int | None = None
    """Channels of a head; None: hidden_size / num_attention_heads."""
    vocab_size: int
    use_mup: bool = True
    scale_emb: float = 12.0
    dim_model_base: int = 256
    """Part of the file, unused by the released code."""
    scale_depth: float = 1.4
    no_rope: bool = False

    @model_validator(mode="after")
    def _heads_fit(self) -> "LanguageModelConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.kv_channels is None and self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads where kv_channels is absent")
        for name in ("long_factor", "short_factor"):
            count = len(getattr(self.rope_scaling, name))
            if not self.no_rope and count != self.head_dim // 2:
                raise ValueError(f"rope_scaling.{name} has {count} factors, head_dim / 2 is {self.head_dim // 2}")
        return self

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.kv_channels or self.hidden_size // self.num_attention_heads


class LocalStackConfig(Config):
    """Size of LocEnc's stack; everything else comes from the language model's configuration."""

    hidden_dim: int = 1024
    ffn_dim: int = 4096
    num_heads: int = 16
    num_layers: int = 4
    kv_channels: int | None = None


class FlowConfig(Config):
    """Flow matching (`cfm_config`)."""

    sigma_min: float = 1e-6
    """Part of the file, unused by the released code, as are solver, reg_loss_type and inference_cfg_rate."""
    solver: str = "euler"
    t_scheduler: Literal["log-norm", "uniform"] = "log-norm"
    training_cfg_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of target patches whose condition is dropped in training, for classifier-free guidance."""
    inference_cfg_rate: float = 1.0
    reg_loss_type: str = "l1"
    ratio_r_neq_t_range: tuple[float, float] = (0.25, 0.75)
    """MeanFlow: share of patches with r < t at the start and at the end of the training."""
    noise_cond_prob_range: tuple[float, float] = (0.0, 0.0)
    """Share of patches whose condition gets noise, at the start and at the end of the training."""
    noise_cond_scale: float = 0.0


class DiTConfig(LocalStackConfig):
    """LocDiT: size of its stack and its flow matching. `dit_mean_mode`: the loss is MeanFlow's."""

    dit_mean_mode: bool = False
    cfm_config: FlowConfig = FlowConfig()


class AudioVAEConfig(Config):
    """AudioVAE V2 (report 3.2)."""

    encoder_dim: int = 128
    """Channels after the first convolution of the encoder; doubled at each stage."""
    encoder_rates: tuple[int, ...] = (2, 5, 8, 8)
    """Strides of the encoder's stages; their product is the samples of a latent frame at the encoder's rate."""
    latent_dim: int = 64
    """Channels of the latents."""
    decoder_dim: int = 2048
    """Channels before the first stage of the decoder; halved at each stage."""
    decoder_rates: tuple[int, ...] = (8, 6, 5, 2, 2, 2)
    """Strides of the decoder's stages; their product is the samples of a latent frame at the decoder's rate."""
    depthwise: bool = True
    """Depthwise convolutions in the residual units."""
    use_noise_block: bool = False
    """Add learnt noise after each stage of the decoder."""
    sr_bin_boundaries: tuple[int, ...] | None = (20000, 30000, 40000)
    """Borders, in hertz, of the classes of source sample rates that condition the decoder; null: no condition."""
    cond_type: Literal["scale_bias", "scale_bias_init", "add", "concat"] = "scale_bias"
    """How the condition enters a stage of the decoder."""
    cond_dim: int = 128
    """Channels of the condition."""
    cond_out_layer: bool = False
    """A layer after the condition, which brings the stage's channels back."""
    sample_rate: int = 16000
    """Hertz of the audio that the encoder takes."""
    out_sample_rate: int = 48000
    """Hertz of the audio that the decoder returns."""

    @model_validator(mode="after")
    def _condition_fits(self) -> "AudioVAEConfig":
        bounds = self.sr_bin_boundaries
        if bounds is not None and list(bounds) != sorted(set(bounds)):
            raise ValueError(f"sr_bin_boundaries must rise, not {list(bounds)}")
        if bounds is not None and self.cond_type == "concat" and not self.cond_out_layer:
            raise ValueError("cond_type 'concat' needs cond_out_layer: true, which brings the channels back")
        return self


class VoxCPM2Config(Config):
    """All of `config.json`. Lengths are LM positions; a patch is `patch_size` latent frames (160 ms released)."""

    architecture: Literal["voxcpm2"] = "voxcpm2"
    lm_config: LanguageModelConfig
    patch_size: int = Field(default=4, ge=1)
    feat_dim: int = 64
    residual_lm_num_layers: int = 8
    residual_lm_no_rope: bool = False
    scalar_quantization_latent_dim: int = 512
    scalar_quantization_scale: int = Field(default=9, ge=1)
    encoder_config: LocalStackConfig
    dit_config: DiTConfig
    audio_vae_config: AudioVAEConfig = AudioVAEConfig()
    max_length: int = 8192
    device: str = "cuda"
    dtype: Dtype = "bfloat16"
    unread: dict[str, JsonValue] = Field(default_factory=dict, exclude=True)
    """Keys of the file that nothing reads, by dotted name; `write_config` puts them back."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "VoxCPM2Config":
        for name, size in (("encoder_config", self.encoder_config), ("dit_config", self.dit_config)):
            try:
                self.local_stack(size)
            except ValidationError as error:
                raise ValueError(f"{name}: {_explain(error)}") from None
        if self.dit_config.hidden_dim % 2 or self.dit_config.hidden_dim < 4:
            raise ValueError(
                f"dit_config.hidden_dim = {self.dit_config.hidden_dim}: must be even, 4 or more (time embedding)"
            )
        if self.lm_config.vocab_size <= LAST_SPECIAL_TOKEN:
            raise ValueError(
                f"lm_config.vocab_size = {self.lm_config.vocab_size}: the special tokens go up to {LAST_SPECIAL_TOKEN}"
            )
        if self.feat_dim != self.audio_vae_config.latent_dim:
            raise ValueError(
                f"feat_dim = {self.feat_dim}: must be audio_vae_config.latent_dim, {self.audio_vae_config.latent_dim}"
            )
        return self

    @property
    def residual_stack(self) -> LanguageModelConfig:
        """RALM: the language model's block with its own depth, no vocabulary, RoPE or none."""
        return self.lm_config.model_copy(
            update={
                "num_hidden_layers": self.residual_lm_num_layers,
                "vocab_size": 0,
                "no_rope": self.residual_lm_no_rope,
            }
        )

    def local_stack(self, size: LocalStackConfig) -> LanguageModelConfig:
        """LocEnc or LocDiT: `size` over the language model's heads of keys and values, RoPE, eps and muP."""
        return LanguageModelConfig.model_validate(
            self.lm_config.model_dump()
            | {
                "hidden_size": size.hidden_dim,
                "intermediate_size": size.ffn_dim,
                "num_attention_heads": size.num_heads,
                "num_hidden_layers": size.num_layers,
                "kv_channels": size.kv_channels,
                "vocab_size": 0,
            }
        )


def read_config(path: str | Path) -> VoxCPM2Config:
    """Reads a released `config.json`, or the folder that holds it; either may be a URI.

    Raises:
        UserError: unreadable, not JSON, another architecture, or a field with a wrong value; names file and field.
    """
    path = base_of(path)
    if is_remote(path):
        # The folder's other files will be read, too.
        path = path if path.name == "config.json" else local_copy(path)
    path = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a folder with a released config.json"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); copy it again") from None
    if not isinstance(values, dict) or values.get("architecture") != "voxcpm2":
        architecture = values.get("architecture", "voxcpm") if isinstance(values, dict) else type(values).__name__
        raise UserError(f"{path}: architecture is {architecture!r}; only 'voxcpm2' checkpoints are supported")
    for section in ("lm_config", "encoder_config", "dit_config"):  # elsewhere the types refuse null
        inner = values.get(section)
        if isinstance(inner, dict) and inner.get("kv_channels", 0) is None:
            raise UserError(
                f"{path}: {section}.kv_channels is null, which the released code refuses; leave the key out"
            )
    unread: dict[str, JsonValue] = {}
    while True:
        try:
            return VoxCPM2Config.model_validate(values | {"unread": unread})
        except ValidationError as error:
            extra = [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
            if not extra:
                raise UserError(f"{path}: {_explain(error)}") from None
            for location in extra:
                names = [str(part) for part in location]
                unread[".".join(names)] = _section(values, names[:-1]).pop(names[-1])


def _section(values: dict[str, JsonValue], names: Sequence[str]) -> dict[str, JsonValue]:
    """The section of that name, one level a name; empty ones are added where there is none."""
    for name in names:
        inner = values.setdefault(name, {})
        assert isinstance(inner, dict), f"{name} is no section"
        values = inner
    return values


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    value = "" if isinstance(first.get("input"), dict) else f" = {first.get('input')!r}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}{value}: {message}" if field else message


def released_values(config: VoxCPM2Config) -> dict[str, JsonValue]:
    """The content of the released `config.json`: a field that is None is left out, unless the file may hold null."""
    values: dict[str, JsonValue] = config.model_dump(mode="json", exclude_none=True)
    added: dict[str, JsonValue] = {}
    if config.audio_vae_config.sr_bin_boundaries is None:
        added["audio_vae_config.sr_bin_boundaries"] = None
    for dotted, value in (added | config.unread).items():
        *names, last = dotted.split(".")
        _section(values, names)[last] = value
    return values


def write_config(config: VoxCPM2Config, folder: str | Path) -> None:
    """Writes `folder/config.json` in the released form."""
    text = json.dumps(released_values(config), indent=2, ensure_ascii=False)
    (Path(folder) / "config.json").write_text(text + "\n", encoding="utf-8")
