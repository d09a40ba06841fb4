"""The released fine-tuning loop on this CPU, from the package's own parts: its model, its AudioVAE, its packer.

Its script (not in the package) draws samples at random, `BATCH` at a time, encodes every clip again, pads to the
longest, computes all positions and adds up the gradients of several batches before AdamW moves. Its rules are kept;
what they would cost besides is left out in its favour: audio lies decoded in memory, and nothing is logged or saved.

`voxcpm.training` as a whole needs argbind and an older `datasets`, so the packer is loaded by its file.
"""

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from benchmarks.generate import peer_of
from model.checkpoint import Checkpoint

BATCH = 2
"""`batch_size` of its configurations for VoxCPM2; they add up 8 batches a step."""
PADDING = -100
NO_REFERENCE = torch.tensor([float(PADDING)])
WEIGHT_DECAY, CLIP = 0.01, 1.0


@dataclass(frozen=True)
class Sample:
    """Token ids and audio [T] at the encoder's rate, as its dataset hands them out."""

    tokens: Sequence[int]
    audio_T: Tensor
    reference_T: Tensor | None


@dataclass(frozen=True)
class Spent:
    """One optimizer step. `vae_seconds`: spent in the packer, nearly all in AudioVAE; `loss`: mean of the batches."""

    seconds: float
    vae_seconds: float
    positions: int
    loss: float


class Collated(TypedDict):
    """Padded tensors by the names of its packer's arguments."""

    text_tokens: Tensor
    audio_tokens: Tensor
    ref_audio_tokens: Tensor
    task_ids: Tensor
    dataset_ids: Tensor
    is_prompts: list[bool]


def collate(batch: Sequence[Sample]) -> Collated:
    """Padded tensors as its `collate_fn` makes them."""
    references = [NO_REFERENCE if sample.reference_T is None else sample.reference_T for sample in batch]
    texts = [torch.tensor(sample.tokens, dtype=torch.int32) for sample in batch]
    return {
        "text_tokens": pad_sequence(texts, True, PADDING),
        "audio_tokens": pad_sequence([sample.audio_T for sample in batch], True, PADDING),
        "ref_audio_tokens": pad_sequence(references, True, PADDING),
        "task_ids": torch.ones(len(batch), dtype=torch.int32),
        "dataset_ids": torch.zeros(len(batch), dtype=torch.int32),
        "is_prompts": [False] * len(batch),
    }


class ReleasedLoop:
    """A model of the released code in training, with the checkpoint's weights."""

    def __init__(self, checkpoint: Checkpoint, *, learning_rate: float) -> None:
        config = checkpoint.config
        self.model = peer_of(checkpoint.model, checkpoint.vae, torch.float32).train()
        # The script takes the AudioVAE out of the model that it trains, and gives it to the packer.
        vae = self.model.audio_vae.requires_grad_(False)
        del self.model.audio_vae
        self.packer = _packers().AudioFeatureProcessingPacker(
            1, config.max_length, config.patch_size, config.feat_dim, vae
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)

    def step(self, samples: Sequence[Sample]) -> Spent:
        """One optimizer step over all samples, shuffled and `BATCH` at a time."""
        began, vae_seconds, positions, loss = time.perf_counter(), 0.0, 0, 0.0
        batches: DataLoader[Sample] = DataLoader(
            samples,  # type: ignore[arg-type]
            BATCH,
            shuffle=True,
            collate_fn=collate,
        )
        for batch in batches:
            packing = time.perf_counter()
            packed = self.packer(**batch)
            vae_seconds += time.perf_counter() - packing
            losses = self.model(
                packed["text_tokens"],
                packed["text_mask"],
                packed["audio_feats"],
                packed["audio_mask"],
                packed["loss_mask"],
                packed["position_ids"],
                packed["labels"],
            )
            total = (losses["loss/diff"] + losses["loss/stop"]) / len(batches)
            total.backward()
            positions += packed["text_tokens"].numel()
            loss += float(total.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Spent(time.perf_counter() - began, vae_seconds, positions, loss)


def _packers() -> Any:
    """The module `voxcpm.training.packers` alone."""
    package = importlib.util.find_spec("voxcpm")
    assert package is not None and package.submodule_search_locations, "`peer_of` checks that it is installed"
    path = Path(package.submodule_search_locations[0]) / "training" / "packers.py"
    spec = importlib.util.spec_from_file_location("voxcpm_packers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
