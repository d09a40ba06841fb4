"""Reading and writing the released `config.json`."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.config import VoxCPM2Config, read_config, released_values, write_config
from model.presets import PRESETS, preset
from tests.support.oracle import read_oracle
from voxmill.core.errors import UserError


@pytest.fixture
def values() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((read_oracle().checkpoint / "config.json").read_text())
    return content


def write(folder: Path, values: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_keys_that_nothing_reads_are_kept(tmp_path: Path, values: dict[str, Any]) -> None:
    values["dit_config"]["mean_mode"] = False
    values["lm_config"]["rope_scaling"]["note"] = "kept"
    values["later"] = {"a": None}  # null is allowed in a key that nothing reads
    config = read_config(write(tmp_path, values))
    assert config.unread == {
        "dit_config.mean_mode": False,
        "lm_config.rope_scaling.note": "kept",
        "later": {"a": None},
    }
    again = tmp_path / "again"
    again.mkdir()
    write_config(config, again)
    written = json.loads((again / "config.json").read_text())

    def includes(whole: Any, part: Any) -> bool:
        if isinstance(part, dict):
            return all(key in whole and includes(whole[key], value) for key, value in part.items())
        return bool(whole == part)

    assert includes(written, values)
    assert read_config(again) == config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back(tmp_path: Path, name: str) -> None:
    write_config(preset(name), tmp_path)
    assert read_config(tmp_path / "config.json") == preset(name)


def test_absent_is_not_null(tmp_path: Path, values: dict[str, Any]) -> None:
    del values["lm_config"]["kv_channels"]
    config = read_config(write(tmp_path, values))
    assert config.lm_config.kv_channels is None and config.lm_config.head_dim == 64 // 4
    language_model = released_values(config)["lm_config"]
    assert isinstance(language_model, dict) and "kv_channels" not in language_model
    values["audio_vae_config"]["sr_bin_boundaries"] = None
    config = read_config(write(tmp_path, values))
    audio_vae = released_values(config)["audio_vae_config"]
    assert isinstance(audio_vae, dict) and audio_vae["sr_bin_boundaries"] is None
    write_config(config, tmp_path)
    assert read_config(tmp_path) == config


def test_defaults_of_the_released_code(tmp_path: Path, values: dict[str, Any]) -> None:
    for name in ("use_mup", "no_rope"):
        values["lm_config"].pop(name, None)
    values["dit_config"]["cfm_config"] = {}
    del values["residual_lm_no_rope"]
    config = read_config(write(tmp_path, values))
    flow = config.dit_config.cfm_config
    assert config.lm_config.use_mup and not config.lm_config.no_rope and not config.residual_lm_no_rope
    assert (flow.training_cfg_rate, flow.t_scheduler, flow.noise_cond_scale) == (0.1, "log-norm", 0.0)


MISTAKES: list[tuple[tuple[str, ...], Any, str]] = [
    (("architecture",), "voxcpm", "architecture is 'voxcpm'"),
    (("lm_config", "kv_channels"), None, "lm_config.kv_channels is null"),
    (("encoder_config", "kv_channels"), None, "encoder_config.kv_channels is null"),
    (("lm_config", "hidden_size"), "wide", "lm_config.hidden_size = 'wide'"),
    (("lm_config", "num_attention_heads"), 3, "num_attention_heads 3 must be a multiple of num_key_value_heads 2"),
    (("lm_config", "rope_scaling", "long_factor"), [1.0], "rope_scaling.long_factor has 1 factors, head_dim / 2 is 8"),
    (
        ("encoder_config", "kv_channels"),
        12,
        "encoder_config: rope_scaling.long_factor has 8 factors, head_dim / 2 is 6",
    ),
    (("dit_config", "cfm_config", "t_scheduler"), "cosine", "dit_config.cfm_config.t_scheduler = 'cosine'"),
    (("dit_config", "cfm_config", "training_cfg_rate"), 1.5, "dit_config.cfm_config.training_cfg_rate = 1.5"),
    (("lm_config", "vocab_size"), 90, "lm_config.vocab_size = 90"),
    (("feat_dim",), 12, "feat_dim = 12: must be audio_vae_config.latent_dim, 16"),
    (("dtype",), "int8", "dtype = 'int8'"),
    (("scalar_quantization_scale",), 0, "scalar_quantization_scale = 0"),
]


@pytest.mark.parametrize(
    ("key", "value", "expected"), MISTAKES, ids=lambda x: ".".join(x) if isinstance(x, tuple) else ""
)
def test_mistakes_are_reported_in_one_line(
    tmp_path: Path, values: dict[str, Any], key: tuple[str, ...], value: Any, expected: str
) -> None:
    inner = values
    for name in key[:-1]:
        inner = inner[name]
    inner[key[-1]] = value
    with pytest.raises(UserError) as caught:
        read_config(write(tmp_path, values))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'config.json'}: ") and expected in message
    assert "\n" not in message and len(message) < 400


def test_missing_field_unreadable_and_not_json(tmp_path: Path, values: dict[str, Any]) -> None:
    del values["lm_config"]["vocab_size"]
    with pytest.raises(UserError, match=r"config.json: lm_config.vocab_size: Field required$"):
        read_config(write(tmp_path, values))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_config(tmp_path)
    with pytest.raises(UserError, match="nowhere.*cannot be read"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(UserError, match="only 'voxcpm2'"):
        read_config(write(tmp_path, ["a list"]))


def test_a_users_own_mistake_is_no_unread_key() -> None:
    with pytest.raises(ValueError, match="patch_sise"):
        VoxCPM2Config.model_validate(released_values(preset("tiny")) | {"patch_sise": 4})
