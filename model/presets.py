"""Three sizes of VoxCPM2: `tiny` for tests, `small` for benchmarks and one GPU, `voxcpm2` as released."""

from typing import Literal

from model.config import (
    AudioVAEConfig,
    DiTConfig,
    FlowConfig,
    LanguageModelConfig,
    LocalStackConfig,
    RopeScaling,
    VoxCPM2Config,
)
from voxmill.core.errors import UserError

PRESETS = ("tiny", "small", "voxcpm2")
Preset = Literal["tiny", "small", "voxcpm2"]

# fmt: off
_FACTORS = (
    0.9977997200264581, 1.014658295992452, 1.0349680404997148, 1.059429246056193, 1.0888815016813513,
    1.1243301355211495, 1.166977103606075, 1.2182568066927284, 1.2798772354275727, 1.3538666751582975,
    1.4426259039919596, 1.5489853358570191, 1.6762658237220625, 1.8283407612492941, 2.0096956085876183,
    2.225478927469756, 2.481536379650452, 2.784415934557119, 3.1413289096347365, 3.560047844772632, 4.048719380066383,
    4.615569542115128, 5.2684819496549835, 6.014438591970396, 6.858830049237097, 7.804668263503327, 8.851768731513417,
    9.99600492938444, 11.228766118181639, 12.536757560834843, 13.902257701387796, 15.303885189125953,
    16.717837610115794, 18.119465097853947, 19.484965238406907, 20.792956681060105, 22.02571786985731,
    23.16995406772833, 24.217054535738416, 25.16289275000465, 26.007284207271347, 26.753240849586767,
    27.40615325712662, 27.973003419175363, 28.461674954469114, 28.880393889607006, 29.237306864684626,
    29.540186419591297, 29.79624387177199, 30.01202719065413, 30.193382037992453, 30.34545697551969, 30.47273746338473,
    30.579096895249787, 30.66785612408345, 30.741845563814174, 30.80346599254902, 30.85474569563567,
    30.897392663720595, 30.932841297560394, 30.962293553185553, 30.986754758742034, 31.007064503249293,
    31.02392307921529,
)
# fmt: on


def _released() -> VoxCPM2Config:
    rope = RopeScaling(long_factor=_FACTORS, short_factor=_FACTORS, original_max_position_embeddings=32768)
    return VoxCPM2Config(
        lm_config=LanguageModelConfig(
            hidden_size=2048,
            intermediate_size=6144,
            max_position_embeddings=32768,
            num_attention_heads=16,
            num_hidden_layers=28,
            num_key_value_heads=2,
            kv_channels=128,
            rope_scaling=rope,
            vocab_size=73448,
            use_mup=False,
        ),
        residual_lm_no_rope=True,
        encoder_config=LocalStackConfig(num_layers=12, kv_channels=128),
        dit_config=DiTConfig(num_layers=12, kv_channels=128, cfm_config=FlowConfig(inference_cfg_rate=2.0)),
    )


def _small() -> VoxCPM2Config:
    # Every other released factor: the same range of wave lengths over half as many channels.
    rope = RopeScaling(long_factor=_FACTORS[::2], short_factor=_FACTORS[::2], original_max_position_embeddings=32768)
    return VoxCPM2Config(
        lm_config=LanguageModelConfig(
            hidden_size=512,
            intermediate_size=1536,
            max_position_embeddings=32768,
            num_attention_heads=8,
            num_hidden_layers=8,
            num_key_value_heads=2,
            kv_channels=64,
            rope_scaling=rope,
            vocab_size=73448,
            use_mup=False,
        ),
        residual_lm_num_layers=4,
        residual_lm_no_rope=True,
        scalar_quantization_latent_dim=128,
        encoder_config=LocalStackConfig(hidden_dim=256, ffn_dim=1024, num_heads=8, num_layers=4, kv_channels=64),
        dit_config=DiTConfig(
            hidden_dim=384,
            ffn_dim=1536,
            num_heads=8,
            num_layers=6,
            kv_channels=64,
            cfm_config=FlowConfig(inference_cfg_rate=2.0),
        ),
        audio_vae_config=AudioVAEConfig(encoder_dim=32, decoder_dim=512),
        max_length=4096,
        dtype="float32",
    )


def _tiny() -> VoxCPM2Config:
    factors = tuple(1.0 + 0.1 * step for step in range(8))
    rope = RopeScaling(long_factor=factors, short_factor=factors, original_max_position_embeddings=512)
    return VoxCPM2Config(
        lm_config=LanguageModelConfig(
            hidden_size=64,
            intermediate_size=96,
            max_position_embeddings=512,
            num_attention_heads=4,
            num_hidden_layers=3,
            num_key_value_heads=2,
            kv_channels=16,
            rope_scaling=rope,
            vocab_size=640,
            use_mup=False,
        ),
        feat_dim=16,
        residual_lm_num_layers=2,
        residual_lm_no_rope=True,
        scalar_quantization_latent_dim=24,
        encoder_config=LocalStackConfig(hidden_dim=48, ffn_dim=80, num_heads=4, num_layers=2, kv_channels=16),
        dit_config=DiTConfig(
            hidden_dim=40,
            ffn_dim=72,
            num_heads=4,
            num_layers=2,
            kv_channels=16,
            cfm_config=FlowConfig(inference_cfg_rate=2.0),
        ),
        audio_vae_config=AudioVAEConfig(encoder_dim=8, latent_dim=16, decoder_dim=64),
        max_length=256,
        device="cpu",
        dtype="float32",
    )


def preset(name: str) -> VoxCPM2Config:
    """The configuration of that size.

    Raises:
        UserError: not one of `PRESETS`.
    """
    if name == "tiny":
        return _tiny()
    if name == "small":
        return _small()
    if name == "voxcpm2":
        return _released()
    raise UserError(f"{name!r} is not a preset; choose one of {', '.join(PRESETS)}")
