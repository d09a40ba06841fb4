"""The sizes of the presets, on the meta device."""

import pytest
import torch

from model.presets import PRESETS, preset
from model.voxcpm2 import VoxCPM2
from voxmill.core.errors import UserError

RELEASED = {  # spec of the released checkpoint
    "base_lm": 1_471_744_000,
    "residual_lm": 377_522_176,
    "feat_encoder": 207_711_232,
    "feat_decoder": 212_040_768,
    "fusion_concat_proj": 8_390_656,
    "stop_proj": 4_196_352,
    "fsq_layer": 2_099_712,
    "enc_to_lm_proj": 2_099_200,
    "lm_to_dit_proj": 2_098_176,
    "res_to_dit_proj": 2_098_176,
    "stop_head": 4_096,
}


def on_meta(name: str) -> VoxCPM2:
    with torch.device("meta"):
        return VoxCPM2(preset(name))


def test_released_size() -> None:
    model = on_meta("voxcpm2")
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()} == RELEASED
    assert len(model.state_dict()) == 577
    assert sum(p.numel() for p in model.parameters()) == 2_290_004_544


def test_smaller_presets_are_small_and_of_the_same_kind() -> None:
    released = preset("voxcpm2")
    for name, most in (("tiny", 1e6), ("small", 1e8)):
        config = preset(name)
        assert sum(p.numel() for p in on_meta(name).parameters()) < most
        assert config.patch_size == released.patch_size
        assert config.scalar_quantization_scale == released.scalar_quantization_scale
        assert config.residual_lm_no_rope and not config.lm_config.use_mup
        assert config.lm_config.head_dim % 2 == 0
    # So a text of the released tokenizer can go through it.
    assert preset("small").lm_config.vocab_size == released.lm_config.vocab_size


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        preset("large")
    assert all(name in str(caught.value) for name in PRESETS)
