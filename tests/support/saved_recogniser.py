"""A small random CTC recogniser in transformers' layout: loading, texts and word times can be tested, not quality."""

import json
from pathlib import Path


def save_ctc(folder: Path, characters: str, *, adapter: bool = False) -> str:
    """Writes model, tokenizer and feature extractor and returns the path as a configuration names it.

    Args:
        characters: that it writes, beside the space.
        adapter: one that has an adapter for each language, as MMS has.
    """
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *characters])}
    torch.manual_seed(3)
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
        adapter_attn_dim=8 if adapter else None,
    )
    model = Wav2Vec2ForCTC(config)
    with torch.no_grad():
        # So that it changes its mind from frame to frame.
        model.lm_head.weight.normal_(std=4.0)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)  # type: ignore[no-untyped-call]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    settings = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "word_delimiter_token": "|", "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)
