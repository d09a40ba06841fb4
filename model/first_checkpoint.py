"""The checkpoint that stage 1 starts from: a trained codec, TSLM from a language model or fresh, the rest fresh."""

from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import load_vae, save_checkpoint, torch_dtype
from model.config import (
    LAST_SPECIAL_TOKEN,
    AudioVAEConfig,
    DiTConfig,
    Dtype,
    LanguageModelConfig,
    LocalStackConfig,
    VoxCPM2Config,
    read_config,
)
from model.language_model import LanguageModel
from model.sequence.layouts import AUDIO_START
from model.sequence.text_tokenizer import FILE, TextTokenizer
from model.voxcpm2 import VoxCPM2
from voxmill.core.errors import UserError

_ROUND = 64
"""Rows of an embedding come in multiples of it, which matrix units of GPUs are fast with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstCheckpoint:
    """What was written."""

    config: VoxCPM2Config
    parameters: dict[str, int]
    """Of each part by its released name, AudioVAE's under `audio_vae`."""


def write_first_checkpoint(
    folder: Path,
    size: VoxCPM2Config,
    *,
    codec: str | Path,
    tokenizer_from: str | Path,
    language_model: LanguageModel | None = None,
    seed: int = 0,
    dtype: Dtype | None = None,
) -> FirstCheckpoint:
    """Writes a checkpoint in the released layout; the same arguments give the same bytes.

    Fresh weights are as PyTorch initialises each layer, drawn from `seed`; which of them are drawn does not depend on
    the language model.

    Args:
        folder: new or empty.
        size: a preset; TSLM's size comes from the language model, if there is one.
        codec: checkpoint folder with the AudioVAE, such as `voxmill train-vae` writes.
        tokenizer_from: folder with the `tokenizer.json`.
        dtype: of the model's tensors; None: that of `size`.

    Raises:
        UserError: a file is missing or damaged, the parts do not fit each other, or `folder` is not empty.
    """
    tokenizer = TextTokenizer.from_folder(tokenizer_from)
    _check_markers(tokenizer, Path(tokenizer_from))
    codec_config = read_config(codec)
    config = first_config(size, codec_config.audio_vae_config, tokenizer.size, language_model)
    if dtype is not None:
        config = config.model_copy(update={"dtype": dtype})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch_dtype(config.dtype))
        try:
            model = VoxCPM2(config)
        finally:
            torch.set_default_dtype(before)
    if language_model is not None:
        language_model.fill(model.base_lm)
    vae = load_vae(codec, codec_config)
    save_checkpoint(folder, config=config, model=model, vae=vae, tokenizer_from=tokenizer_from)
    parts = {name: sum(value.numel() for value in part.parameters()) for name, part in model.named_children()}
    parts["audio_vae"] = sum(value.numel() for value in vae.parameters())
    return FirstCheckpoint(config=config, parameters=parts)


def first_config(
    size: VoxCPM2Config, codec: AudioVAEConfig, vocabulary: int, language_model: LanguageModel | None = None
) -> VoxCPM2Config:
    """`size` for this codec, tokenizer and language model.

    LocEnc and LocDiT are at least twice as wide as a latent frame: a narrower LocDiT cannot separate the noise in all
    of its channels. Their heads are of the language model's size, as its rotary factors are for that.

    Args:
        vocabulary: ids of the tokenizer.

    Raises:
        UserError: the language model has fewer embeddings than the tokenizer has ids.
    """
    stack = size.lm_config if language_model is None else language_model.config
    if language_model is None:
        rows = -(-vocabulary // _ROUND) * _ROUND
        stack = stack.model_copy(update={"vocab_size": rows})
    elif vocabulary > stack.vocab_size:
        raise UserError(
            f"{language_model.folder}: has embeddings of {stack.vocab_size} ids, and the tokenizer has {vocabulary}; "
            "use the language model's own tokenizer"
        )
    width = 2 * codec.latent_dim
    return VoxCPM2Config.model_validate(
        size.model_dump()
        | {
            "lm_config": stack.model_dump(),
            "encoder_config": _local(size.encoder_config, stack, width),
            "dit_config": _local(size.dit_config, stack, width),
            "audio_vae_config": codec.model_dump(),
            "feat_dim": codec.latent_dim,
            "max_length": min(size.max_length, stack.max_position_embeddings),
        }
    )


def _local(size: LocalStackConfig | DiTConfig, stack: LanguageModelConfig, width: int) -> dict[str, object]:
    heads = -(-size.num_heads // stack.num_key_value_heads) * stack.num_key_value_heads
    return size.model_dump() | {
        "hidden_dim": max(size.hidden_dim, width),
        "ffn_dim": max(size.ffn_dim, 2 * width),
        "num_heads": heads,
        "kv_channels": stack.head_dim,
    }


def _check_markers(tokenizer: TextTokenizer, folder: Path) -> None:
    texts = tokenizer.texts_of(range(AUDIO_START, LAST_SPECIAL_TOKEN + 1))
    if texts:
        raise UserError(
            f"{folder / FILE}: {texts[0]!r} has one of the ids {AUDIO_START} to {LAST_SPECIAL_TOKEN}, by which VoxCPM2 "
            "marks audio; use a MiniCPM-4 tokenizer, or learn one from texts"
        )
