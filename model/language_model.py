"""A text language model in the layout of Hugging Face as TSLM's first weights: MiniCPM-4, or a plain Llama.

The released VoxCPM2 scales nothing (`use_mup: false`), while a MiniCPM-4 multiplies its embeddings by `scale_emb` and
what each of its blocks adds by `scale_depth / sqrt(layers)` (spec 2.1). Both factors go into the weights here, so that
the text path computes what the language model computed.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from model.checkpoint import MODEL_FILES
from model.config import LanguageModelConfig, RopeScaling
from model.layers.transformer import MiniCPM
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import to_path
from voxmill.core.tensor_files import WeightFile, differences, open_weights, shapes

PREFIX = "model."
_NOT_TSLM = ("lm_head.weight",)
"""VoxCPM2 predicts no text."""


class _Rope(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    rope_type: Literal["default", "longrope"] = Field(default="default", alias="type")
    rope_theta: float | None = None
    long_factor: tuple[float, ...] = ()
    short_factor: tuple[float, ...] = ()
    original_max_position_embeddings: int | None = None


class _TextConfig(BaseModel):
    """Keys of a `config.json` that decide what the model computes; what is not here has no effect on hidden states."""

    model_config = ConfigDict(extra="ignore")
    model_type: Literal["minicpm", "llama"]
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int
    rms_norm_eps: float
    vocab_size: int
    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    rope_theta: float = 10000.0
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None
    """Where transformers 5 keeps both."""
    scale_emb: float = 1.0
    scale_depth: float = 1.0

    @property
    def residual_scale(self) -> float:
        """Factor of what each attention and each feed-forward adds."""
        return self.scale_depth / math.sqrt(self.num_hidden_layers) if self.model_type == "minicpm" else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A language model that is opened and not yet read."""

    folder: Path
    config: LanguageModelConfig
    """Of the stack that computes the same without muP."""
    weights: WeightFile
    embedding_scale: float
    residual_scale: float

    def fill(self, stack: MiniCPM) -> None:
        """Writes the weights, scaled, into a stack of `config`, in its dtype.

        Raises:
            UserError: a tensor is missing, unexpected or of another shape; names the folder and the tensor.
        """
        expected = stack.state_dict()
        stored = {name.removeprefix(PREFIX): shape for name, shape in self.weights.shapes().items()}
        wrong = differences({name: stored[name] for name in stored if name not in _NOT_TSLM}, shapes(expected))
        if wrong:
            raise UserError(f"{self.folder}: not the weights of its config.json: {wrong}; copy both from one model")
        with torch.no_grad():
            for name, tensor in self._scaled():
                expected[name].copy_(tensor)

    def _scaled(self) -> Iterator[tuple[str, Tensor]]:
        for full_name, tensor in self.weights.items():
            name = full_name.removeprefix(PREFIX)
            if name in _NOT_TSLM:
                continue
            scale = 1.0
            if name == "embed_tokens.weight":
                scale = self.embedding_scale
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                scale = self.residual_scale
            yield name, tensor.float() * scale


def open_language_model(folder: str | Path) -> LanguageModel:
    """Opens a folder with `config.json` and weights: safetensors, several with an index, or a pickle of tensors.

    Args:
        folder: local, or a URI, of which this machine keeps a copy in its scratch folder.

    Raises:
        UserError: not there, damaged, of another architecture than MiniCPM-4 and Llama, or of one that needs what
            VoxCPM2's blocks lack, such as biases; names the file and the key.
    """
    folder = local_copy(to_path(folder))
    path = folder / "config.json"
    try:
        text = _TextConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
        config = _stack_config(text)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a folder in the layout of Hugging Face"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "values"
        raise UserError(
            f"{path}: {key}: {first['msg']} (here {str(first['input'])[:40]!r}); TSLM starts from MiniCPM-4 or Llama"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); copy it again") from None
    file = next((folder / name for name in MODEL_FILES if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder}: has none of {', '.join(MODEL_FILES)}; name a folder with weights")
    return LanguageModel(
        folder=folder,
        config=config,
        weights=open_weights(file),
        embedding_scale=text.scale_emb,
        residual_scale=text.residual_scale,
    )


def _stack_config(text: _TextConfig) -> LanguageModelConfig:
    head_dim = text.head_dim or text.hidden_size // text.num_attention_heads
    rope = text.rope_parameters or text.rope_scaling or _Rope()
    longest = text.max_position_embeddings
    original = rope.original_max_position_embeddings or longest
    short = rope.short_factor or (1.0,) * (head_dim // 2)
    return LanguageModelConfig(
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        max_position_embeddings=longest,
        num_attention_heads=text.num_attention_heads,
        num_hidden_layers=text.num_hidden_layers,
        num_key_value_heads=text.num_key_value_heads or text.num_attention_heads,
        rms_norm_eps=text.rms_norm_eps,
        rope_theta=rope.rope_theta or text.rope_theta,
        # VoxCPM2 takes the long factors wherever positions could pass the original length; language models take the
        # short ones for every text within it, and that is what speech of minutes stays in.
        rope_scaling=RopeScaling(long_factor=short, short_factor=short, original_max_position_embeddings=original),
        kv_channels=head_dim,
        vocab_size=text.vocab_size,
        use_mup=False,
    )
