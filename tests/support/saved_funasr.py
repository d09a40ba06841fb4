"""Small models of FunASR with weights drawn at random, in the layout of the published ones: loading, not quality."""

import io
from pathlib import Path
from typing import Any

import yaml

WIDTH, MELS, STACKED = 32, 80, 7
FRONTEND = {"fs": 16000, "window": "hamming", "n_mels": MELS, "frame_length": 25, "frame_shift": 10}
ENCODER = {
    "output_size": WIDTH,
    "attention_heads": 4,
    "linear_units": 64,
    "num_blocks": 2,
    "input_layer": "pe",
    "normalize_before": True,
    "kernel_size": 11,
    "sanm_shfit": 0,
    "selfattention_layer_type": "sanm",
}
# FunASR's time stamps of SenseVoice want a vocabulary of more than 125.
CHARACTERS = "".join(chr(0x4E00 + number) for number in range(160))
TEXTS = [CHARACTERS, "the quick brown fox jumps over a lazy dog", "pack my box with five dozen jugs"]


def save_sense_voice(folder: Path) -> str:
    """SenseVoiceSmall: `config.yaml`, `model.pt` and the pieces of its tokenizer."""
    import sentencepiece

    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=pieces, vocab_size=180, model_type="char", minloglevel=2
    )
    config = {
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": {**ENCODER, "tp_blocks": 1},
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
    }
    return _save(folder, config, {"bpe.model": pieces.getvalue()})


def save_paraformer(folder: Path) -> str:
    """Paraformer with time stamps (`paraformer-zh`): `config.yaml`, `model.pt` and its characters."""
    tokens = ["<blank>", "<s>", "</s>", *sorted({char for char in CHARACTERS}), "<unk>"]
    config = {
        "model": "BiCifParaformer",
        "model_conf": {
            "ctc_weight": 0.0,
            "lsm_weight": 0.1,
            "length_normalized_loss": True,
            "predictor_weight": 1.0,
            "predictor_bias": 1,
            "sampling_ratio": 0.75,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": ENCODER,
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            "attention_heads": 4,
            "linear_units": 64,
            "num_blocks": 2,
            "att_layer_num": 2,
            "kernel_size": 11,
            "sanm_shfit": 0,
        },
        "predictor": "CifPredictorV3",
        "predictor_conf": {
            "idim": WIDTH,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
            "smooth_factor2": 0.25,
            "noise_threshold2": 0.01,
            "upsample_times": 3,
            "use_cif1_cnn": False,
            "upsample_type": "cnn_blstm",
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    return _save(folder, config, {"tokens.json": str(tokens).replace("'", '"').encode()})


def _save(folder: Path, config: dict[str, Any], files: dict[str, bytes]) -> str:
    """Writes everything, the weights as FunASR itself draws them."""
    import torch
    from funasr import AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    whole = {**config, "frontend": "WavFrontend", "frontend_conf": {**FRONTEND, "lfr_m": STACKED, "lfr_n": 6}}
    (folder / "config.yaml").write_text(yaml.safe_dump(whole))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    torch.save({}, folder / "model.pt")
    drawn = AutoModel(
        model=str(folder), device="cpu", ncpu=1, disable_update=True, disable_pbar=True, disable_log=True, seed=5
    )
    torch.save(drawn.model.state_dict(), folder / "model.pt")
    return str(folder)
