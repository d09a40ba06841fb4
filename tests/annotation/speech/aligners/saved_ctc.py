"""A small random CTC model of letters in transformers' layout: frames, spelling and paths can be tested."""

import json
from pathlib import Path
from typing import Any

WAV2VEC2 = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
"""The vocabulary of wav2vec2-base-960h."""
MMS = ["<blank>", "<pad>", "</s>", "<unk>", *"aienourtslmkdhgypvbcjwzfqx'"]
"""The order of specials in the MMS aligner that transformers loads."""


def save_ctc(folder: Path, vocabulary: list[str], delimiter: str = "|", adapters: int | None = None) -> str:
    """Writes a model, its tokenizer and its feature extractor; returns the path as a configuration names it."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    torch.manual_seed(22)
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        adapter_attn_dim=adapters,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
    tokenizers: Any = Wav2Vec2CTCTokenizer
    tokenizer = tokenizers(str(folder / "vocab.json"), word_delimiter_token=delimiter)
    tokenizer.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)  # type: ignore[no-untyped-call]
    return str(folder)
