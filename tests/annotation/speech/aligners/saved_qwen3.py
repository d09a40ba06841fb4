"""A small Qwen3-ForcedAligner with drawn weights, in the layout that Qwen publishes."""

import json
from pathlib import Path

VOCABULARY = 272
AUDIO_START, AUDIO_END, AUDIO_PAD, TIMESTAMP, END = range(256, 261)
SPECIAL = {
    "<|endoftext|>": END,
    "<|audio_start|>": AUDIO_START,
    "<|audio_end|>": AUDIO_END,
    "<|audio_pad|>": AUDIO_PAD,
    "<timestamp>": TIMESTAMP,
}
AUDIO = {
    "num_mel_bins": 128,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "d_model": 32,
    "n_window": 50,
    "output_dim": 32,
    "downsample_hidden_size": 8,
    "conv_chunksize": 500,
    "max_source_positions": 1500,
    "activation_function": "gelu",
    "model_type": "qwen3_asr_audio_encoder",
}
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "rope_scaling": {
        "interleaved": True,
        "mrope_interleaved": True,
        "mrope_section": [3, 3, 2],
        "rope_type": "default",
    },
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "model_type": "qwen3_asr_text",
}
THINKER = {
    "audio_token_id": AUDIO_PAD,
    "audio_start_token_id": AUDIO_START,
    "audio_end_token_id": AUDIO_END,
    "classify_num": 50,
    "model_type": "qwen3_forced_aligner",
}
CONFIG = {
    "architectures": ["Qwen3ASRForConditionalGeneration"],
    "model_type": "qwen3_asr",
    "timestamp_segment_time": 80,
    "timestamp_token_id": TIMESTAMP,
}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small model in the published code."""
    lines = (Path(__file__).parent / "qwen3_tensors.txt").read_text().splitlines()
    return {name: tuple(map(int, shape.split("x"))) for name, shape in (line.split(" ") for line in lines)}


def save_published(folder: Path, window_frames: int = 800) -> str:
    """Writes configuration, tokenizer and weights drawn by their published names; returns the path.

    Args:
        window_frames: of 10 ms that its audio encoder attends over.
    """
    from safetensors.torch import save_file

    from tests.evaluation.metrics.encoders.drawn_weights import drawn

    weights = drawn(published_shapes())
    # So that what surrounds a timestamp counts for more than that it is one.
    weights["thinker.model.embed_tokens.weight"] *= 0.02
    save_file(weights, folder / "model.safetensors")
    audio = AUDIO | {"n_window_infer": window_frames}
    thinker = {"audio_config": audio, "text_config": TEXT, **THINKER}
    (folder / "config.json").write_text(json.dumps({"thinker_config": thinker, **CONFIG}))
    save_tokenizer(folder)
    return str(folder)


def save_tokenizer(folder: Path) -> None:
    """Bytes, as Qwen2's tokenizer has them, without merges, and the special tokens of the aligner."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {"audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>", "audio_token": "<|audio_pad|>"}
    added = {
        str(number): {
            "content": token,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
            "special": token != "<timestamp>",
        }
        for token, number in SPECIAL.items()
    }
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"],
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "bos_token": None,
        "extra_special_tokens": names,
        **names,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
