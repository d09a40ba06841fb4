"""What the released code computed from a tiny checkpoint: `Oracle` reads such a folder.

The folder is `tests/data/oracle/rel`, or the one that the environment variable `VOXMILL_ORACLE` names; any folder of
the same form will do, so tests take sizes from its configuration, never from memory. Origin: `tests/data/oracle`.
"""

import os
from functools import cache, cached_property
from json import loads
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from model.config import VoxCPM2Config, read_config
from model.voxcpm2 import VoxCPM2


class Oracle:
    """`oracle["vae.mu"]` is a tensor, `oracle.json["tokenize"]` plain data of `oracle.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "ckpt"
        self.lora = folder / "lora"

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def names(self, prefix: str) -> list[str]:
        """Names of the tensors that start with `prefix`, sorted."""
        return sorted(name for name in self.tensors if name.startswith(prefix))

    def wav(self, name: str) -> Path:
        """Path of a recording: "prompt_16k.wav", "ref_24k.wav", "target_16k.wav", with or without "wav/" before it."""
        return self.folder / "wav" / Path(name).name

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return load_file(self.folder / "oracle.safetensors")

    @cached_property
    def json(self) -> dict[str, Any]:
        """Everything of `oracle.json`: names, shapes and notes of the tensors, arguments, measured differences."""
        content: dict[str, Any] = loads((self.folder / "oracle.json").read_text(encoding="utf-8"))
        return content

    @cached_property
    def config(self) -> VoxCPM2Config:
        """Configuration of the checkpoint."""
        return read_config(self.checkpoint)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """State dict of the model without its AudioVAE."""
        return load_file(self.checkpoint / "model.safetensors")

    @cached_property
    def vae_weights(self) -> dict[str, Tensor]:
        """State dict of the AudioVAE."""
        state: dict[str, Tensor] = torch.load(self.checkpoint / "audiovae.pth", weights_only=True)["state_dict"]
        return state

    def core(self) -> VoxCPM2:
        """A new model without its AudioVAE, fp32, with the checkpoint's weights."""
        model = VoxCPM2(self.config)
        model.load_state_dict(self.weights)
        return model.eval()


@cache
def read_oracle() -> Oracle:
    """The oracle of this test run, read once."""
    here = Path(__file__).resolve().parents[1] / "data" / "oracle" / "rel"
    return Oracle(Path(os.environ.get("VOXMILL_ORACLE") or here))


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest expected magnitude; dimensions of size 1 are no difference.

    This is the relative error that the tests bound. NaN or infinity on either side gives infinity.
    """
    actual, expected = actual.detach().squeeze(), expected.detach().squeeze()
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    if not (actual.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    scale = expected.abs().max().item() or 1.0
    return (actual - expected).abs().max().item() / scale
