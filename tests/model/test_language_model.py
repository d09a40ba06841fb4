"""TSLM computes what the language model that it starts from computes."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoint import load_checkpoint
from model.first_checkpoint import write_first_checkpoint
from model.language_model import open_language_model
from model.layers.attention import Documents, Packed
from model.presets import preset
from tests.support.oracle import read_oracle
from voxmill.core.errors import UserError

LAYERS, HEADS, HEAD_DIM, SCALE_EMB, SCALE_DEPTH = 3, 4, 16, 12.0, 1.4
FACTORS = [1.0 + 0.3 * step for step in range(HEAD_DIM // 2)]
SIZE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "vocab_size": 640,
}
MINICPM: dict[str, Any] = SIZE | {
    "architectures": ["MiniCPMForCausalLM"],
    "model_type": "minicpm",
    "scale_emb": SCALE_EMB,
    "scale_depth": SCALE_DEPTH,
    "dim_model_base": 256,
    "rope_scaling": {
        "rope_type": "longrope",
        "long_factor": [2 * factor for factor in FACTORS],
        "short_factor": FACTORS,
        "original_max_position_embeddings": 256,
    },
}
"""As MiniCPM-4's config.json is written, of this size."""
TOKENS = torch.arange(200) * 37 % 640


def write_minicpm(folder: Path, *, shard_bytes: str = "5GB") -> Tensor:
    """Writes a MiniCPM-4 of random weights; returns its hidden states of `TOKENS`.

    transformers has no class of that name. Its Granite is the same computation: embeddings and what blocks add are
    multiplied, and attention is scaled by a number of the configuration.
    """
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(7)
    values = SIZE | {
        "embedding_multiplier": SCALE_EMB,
        "residual_multiplier": SCALE_DEPTH / math.sqrt(LAYERS),
        "attention_multiplier": 1 / math.sqrt(HEAD_DIM),
        "rope_parameters": MINICPM["rope_scaling"] | {"rope_theta": 10000.0},
        "initializer_range": 0.1,
        "tie_word_embeddings": False,
    }
    granite = GraniteForCausalLM(GraniteConfig.from_dict(values))
    granite.save_pretrained(folder, max_shard_size=shard_bytes)
    (folder / "config.json").write_text(json.dumps(MINICPM))
    shutil.copy(read_oracle().checkpoint / "tokenizer.json", folder)
    with torch.no_grad():
        hidden: Tensor = granite.model(TOKENS[None]).last_hidden_state[0]
    return hidden


def text_path(folder: Path) -> Tensor:
    """TSLM's hidden states of `TOKENS`."""
    model = load_checkpoint(folder).model
    with torch.no_grad():
        hidden: Tensor = model.base_lm(model.base_lm.embed(TOKENS), Packed(Documents((len(TOKENS),))))
    return hidden


@pytest.mark.parametrize("shard_bytes", ["5GB", "60KB"])
def test_the_text_path_of_a_new_checkpoint_is_the_minicpm(tmp_path: Path, shard_bytes: str) -> None:
    expected = write_minicpm(tmp_path / "minicpm", shard_bytes=shard_bytes)
    assert len(list((tmp_path / "minicpm").glob("*.safetensors"))) == (1 if shard_bytes == "5GB" else 10)
    language_model = open_language_model(tmp_path / "minicpm")
    codec = read_oracle().checkpoint
    made = write_first_checkpoint(
        tmp_path / "first",
        preset("tiny"),
        codec=codec,
        tokenizer_from=tmp_path / "minicpm",
        language_model=language_model,
    )
    assert not made.config.lm_config.use_mup and made.config.lm_config.num_hidden_layers == LAYERS
    actual = text_path(tmp_path / "first")
    assert expected.std() > 0.5
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)


def test_a_llama_is_taken_as_it_is(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    llama = LlamaForCausalLM(LlamaConfig.from_dict(SIZE | {"rope_theta": 50000.0, "initializer_range": 0.1}))
    llama.save_pretrained(tmp_path / "llama")
    codec = read_oracle().checkpoint
    write_first_checkpoint(
        tmp_path / "first",
        preset("tiny"),
        codec=codec,
        tokenizer_from=codec,
        language_model=open_language_model(tmp_path / "llama"),
        dtype="float32",
    )
    with torch.no_grad():
        expected = llama.model(TOKENS[None]).last_hidden_state[0]
    torch.testing.assert_close(text_path(tmp_path / "first"), expected, atol=2e-5, rtol=1e-4)


def test_what_is_fresh_depends_on_the_seed_and_not_on_the_language_model(tmp_path: Path) -> None:
    write_minicpm(tmp_path / "minicpm")
    codec = read_oracle().checkpoint
    weights = {}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        language_model = open_language_model(tmp_path / "minicpm")
        write_first_checkpoint(
            tmp_path / name, preset("tiny"), codec=codec, tokenizer_from=codec, language_model=language_model, seed=seed
        )
        weights[name] = load_file(tmp_path / name / "model.safetensors")
        assert (tmp_path / name / "model.safetensors").read_bytes() == (
            tmp_path / "first" / "model.safetensors"
        ).read_bytes() or seed != 3
    same = {name for name, value in weights["first"].items() if torch.equal(value, weights["other"][name])}
    norms = {name for name in weights["first"] if "norm" in name}
    assert same - norms == {name for name in weights["first"] if name.startswith("base_lm.")} - norms


def _bias(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)


def _no_norm(weights: dict[str, Tensor]) -> None:
    del weights["model.norm.weight"]


def _few_rows(weights: dict[str, Tensor]) -> None:
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:500].clone()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_bias, r"unexpected layers.0.self_attn.q_proj.bias"),
        (_no_norm, r"missing norm.weight"),
        (_few_rows, r"embed_tokens.weight is \[500, 64\] instead of \[640, 64\]"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    write_minicpm(tmp_path / "minicpm")
    weights = load_file(tmp_path / "minicpm" / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "minicpm" / "model.safetensors")
    codec = read_oracle().checkpoint
    language_model = open_language_model(tmp_path / "minicpm")
    with pytest.raises(UserError, match=message):
        write_first_checkpoint(
            tmp_path / "first", preset("tiny"), codec=codec, tokenizer_from=codec, language_model=language_model
        )
    assert not (tmp_path / "first").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "qwen3"}, "model_type: .*'qwen3'.*MiniCPM-4 or Llama"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.*llama3"),
        ({"hidden_size": None}, "hidden_size"),
        ({"rope_scaling": MINICPM["rope_scaling"] | {"short_factor": [1.0]}}, "short_factor|long_factor"),
    ],
)
def test_other_architectures_are_refused_by_key(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MINICPM | values))
    with pytest.raises(UserError, match=message) as caught:
        open_language_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        open_language_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"not valid JSON"):
        open_language_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(MINICPM))
    with pytest.raises(UserError, match=r"has none of model.safetensors"):
        open_language_model(tmp_path)


def test_a_tokenizer_with_more_ids_than_the_language_model_is_refused(tmp_path: Path) -> None:
    write_minicpm(tmp_path / "minicpm")
    (tmp_path / "minicpm" / "config.json").write_text(json.dumps(MINICPM | {"vocab_size": 128}))
    codec = read_oracle().checkpoint
    with pytest.raises(
        UserError, match=r"embeddings of 128 ids, and the tokenizer has \d+; use the language model's own"
    ):
        write_first_checkpoint(
            tmp_path / "first",
            preset("tiny"),
            codec=codec,
            tokenizer_from=codec,
            language_model=open_language_model(tmp_path / "minicpm"),
        )
