"""Random checkpoints in the released layout whose tokenizer has learnt the texts of the sample recordings.

The released tokenizer is not part of the repository, and that of the tests spells nearly every letter. With
`VOCABULARY` entries the texts take 4.7 tokens a second, which is what English takes in the released vocabulary of 73 k
(`train_step.py`).
"""

from pathlib import Path

from model.checkpoint import new_checkpoint, save_checkpoint
from model.codec.audio_vae import AudioVAE
from model.config import AudioVAEConfig, VoxCPM2Config
from model.first_checkpoint import first_config
from model.presets import preset
from model.sequence.tokenizer_training import train_tokenizer
from model.voxcpm2 import VoxCPM2
from samples.turns import sample_texts

VOCABULARY = 1280


def write_tokenizer(folder: Path) -> Path:
    """`tokenizer.json` of the sample texts, always the same."""
    train_tokenizer(sample_texts(), folder, size=VOCABULARY)
    return folder


def for_samples(config: VoxCPM2Config, *, max_length: int = 512) -> VoxCPM2Config:
    """The same with room for that vocabulary and for positions of `max_length` (`tiny` has less of both)."""
    language = config.lm_config.model_dump() | {
        "vocab_size": max(config.lm_config.vocab_size, VOCABULARY),
        "max_position_embeddings": max(config.lm_config.max_position_embeddings, max_length),
    }
    length = max(config.max_length, max_length)
    return VoxCPM2Config.model_validate(config.model_dump() | {"lm_config": language, "max_length": length})


def tiny_for(vae: AudioVAEConfig, *, max_length: int = 512) -> VoxCPM2Config:
    """`tiny` for the latents of this AudioVAE."""
    return for_samples(first_config(preset("tiny"), vae, VOCABULARY), max_length=max_length)


def write_checkpoint(
    folder: Path, config: VoxCPM2Config, *, seed: int, vae: AudioVAE | None = None, model: VoxCPM2 | None = None
) -> Path:
    """Weights of `config` as PyTorch initialises them, fp32; `vae` and `model` take the place of random ones."""
    tokenizer = write_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    fresh = new_checkpoint(config, tokenizer_from=tokenizer, seed=seed)
    save_checkpoint(folder, config=config, model=model or fresh.model, vae=vae or fresh.vae, tokenizer_from=tokenizer)
    return folder
