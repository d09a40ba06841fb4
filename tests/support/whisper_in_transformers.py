"""The embedded Whisper as a checkpoint of transformers: the same real weights, taken out of CTranslate2's file."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.core.assets import asset_path

DTYPES: dict[int, Any] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
HEADS, LAYERS, WIDTH = 8, 6, 512
START, TRANSLATE, TRANSCRIBE, PREVIOUS, NO_TIMES, END = 50258, 50358, 50359, 50361, 50363, 50257


def save_whisper(folder: Path) -> str:
    """Writes model, tokenizer and feature extractor and returns the path as a configuration names it."""
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    source = asset_path("whisper-base")
    config = WhisperConfig(
        vocab_size=51865,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
    )
    model = WhisperForConditionalGeneration(config)
    state = {name: torch.from_numpy(values) for name, values in _renamed(_variables(source / "model.bin")).items()}
    problems = model.load_state_dict(state, strict=False)
    assert not problems.unexpected_keys and problems.missing_keys == ["proj_out.weight"], problems
    model.tie_weights()
    written = json.loads((source / "config.json").read_text())
    tokens = json.loads((source / "tokenizer.json").read_text())["added_tokens"]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        alignment_heads=written["alignment_heads"],
        suppress_tokens=written["suppress_ids"],
        begin_suppress_tokens=written["suppress_ids_begin"],
        lang_to_id={one["content"]: one["id"] for one in tokens if one["id"] in written["lang_ids"]},
        task_to_id={"translate": TRANSLATE, "transcribe": TRANSCRIBE},
        is_multilingual=True,
        decoder_start_token_id=START,
        prev_sot_token_id=PREVIOUS,
        no_timestamps_token_id=NO_TIMES,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        max_initial_timestamp_index=50,
        max_length=448,
        return_timestamps=False,
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)  # type: ignore[no-untyped-call]
    shutil.copy(source / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer"}))
    return str(folder)


def _variables(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a CTranslate2 model file by their names there, float32."""
    data, place = path.read_bytes(), 0

    def read(kind: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{kind}", data, place)
        place += struct.calcsize(f"<{kind}")
        return int(value)

    def name() -> str:
        nonlocal place
        length = read("H")
        place += length
        return data[place - length : place - 1].decode()

    version, _, _ = read("I"), name(), read("I")
    assert version == 6
    result = {}
    for _ in range(read("I")):
        own = name()
        shape = [read("I") for _ in range(read("B"))]
        dtype, size = DTYPES[read("B")], read("I")
        result[own] = np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, place).reshape(shape)
        place += size
    return {own: values.astype(np.float32) for own, values in result.items() if values.dtype == np.float16}


def _renamed(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same by their names in transformers, joined projections apart."""
    plain = {
        "/position_encodings/encodings": ".embed_positions.weight",
        "/embeddings/weight": ".embed_tokens.weight",
        "/layer_norm/gamma": ".layer_norm.weight",
        "/layer_norm/beta": ".layer_norm.bias",
    }
    norms = {
        "self_attention": "self_attn_layer_norm",
        "attention": "encoder_attn_layer_norm",
        "ffn": "final_layer_norm",
    }
    joined = {
        ("self_attention", "linear_0"): ("q_proj", "k_proj", "v_proj"),
        ("self_attention", "linear_1"): ("out_proj",),
        ("attention", "linear_0"): ("q_proj",),
        ("attention", "linear_1"): ("k_proj", "v_proj"),
        ("attention", "linear_2"): ("out_proj",),
    }
    result: dict[str, np.ndarray] = {}
    for name, values in variables.items():
        side, _, rest = name.partition("/")
        if not rest.startswith("layer_") or rest.startswith("layer_norm"):
            result[f"model.{side}" + plain.get(f"/{rest}", "." + rest.replace("/", "."))] = values
            continue
        layer, part, *own = rest.split("/")
        place = f"model.{side}.layers.{layer.removeprefix('layer_')}."
        if own[0] == "layer_norm":
            result[f"{place}{norms[part]}.{'weight' if own[1] == 'gamma' else 'bias'}"] = values
        elif part == "ffn":
            result[f"{place}fc{int(own[0][-1]) + 1}.{own[1]}"] = values
        else:
            names = joined[part, own[0]]
            for target, piece in zip(names, np.split(values, len(names)), strict=True):
                if (target, own[1]) != ("k_proj", "bias"):
                    attention = "self_attn" if part == "self_attention" else "encoder_attn"
                    result[f"{place}{attention}.{target}.{own[1]}"] = piece
    return result
