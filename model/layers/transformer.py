"""The MiniCPM-4 block: pre-norm, grouped-query attention, SwiGLU, RoPE or none, muP's two scales where asked for.

TSLM, RALM, LocEnc and LocDiT are four instances (report 3.3.1, spec 2.1). Different here: a stack runs on flat packed
tokens, on short sequences or on one token a request, depending on its `Span`; and the last layer computes only the
tokens whose output is read (`keep`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.utils.checkpoint import checkpoint

from model.config import LanguageModelConfig
from model.layers.attention import Packed, Span, Step, attend
from model.layers.rope import RotaryTable, Rotation, rotate

CompileOptions = dict[str, str | int | bool | Callable[..., Any]] | None


class RMSNorm(nn.Module):
    """x / rms(x) in fp32, cast back to x's dtype, then times the weight: the released order, which matters in bf16."""

    def __init__(self, size: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden_NC: Tensor) -> Tensor:
        if hidden_NC.dtype == self.weight.dtype == torch.float32:  # nothing is cast, so one kernel does all of it
            return F.rms_norm(hidden_NC, self.weight.shape, self.weight, self.eps)
        wide_NC = hidden_NC.float()
        wide_NC = wide_NC * torch.rsqrt(wide_NC.square().mean(-1, keepdim=True) + self.eps)
        return wide_NC.to(hidden_NC.dtype) * self.weight


class Attention(nn.Module):
    """Projections and heads; the span decides which tokens attend to which."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        size, queries = config.hidden_size, config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(size, queries, bias=False)
        self.k_proj = nn.Linear(size, keys, bias=False)
        self.v_proj = nn.Linear(size, keys, bias=False)
        self.o_proj = nn.Linear(queries, size, bias=False)

    def forward(
        self, hidden: Tensor, rotation: Rotation | None, span: Span, *, layer: int, keep: slice | None
    ) -> Tensor:
        """[..., C] to [..., C]; with `keep`, only those tokens (of dimension -2) are queries."""
        query, key, value = self.heads(hidden, rotation, keep)
        result: Tensor = self.o_proj(attend(query, key, value, span, layer=layer).flatten(-2))
        return result

    def heads(self, hidden: Tensor, rotation: Rotation | None, keep: slice | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the tokens in `keep`, keys and values of all; rotated, [..., heads, head_dim] each."""
        heads = (-1, self.head_dim)
        kept = hidden if keep is None else hidden[..., keep, :]
        query = self.q_proj(kept).unflatten(-1, heads)
        key = self.k_proj(hidden).unflatten(-1, heads)
        value = self.v_proj(hidden).unflatten(-1, heads)
        if rotation is not None:
            cos, sin = rotation
            query = rotate(query, rotation if keep is None else (cos[..., keep, :, :], sin[..., keep, :, :]))
            key = rotate(key, rotation)
        return query, key, value


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(size, inner, bias=False)
        self.up_proj = nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return result


class Layer(nn.Module):
    """Attention and MLP, each on the normalised stream, each added back."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        depth = config.num_hidden_layers
        self.residual_scale = config.scale_depth / math.sqrt(depth) if config.use_mup else 1.0
        self._compiled: tuple[Callable[..., tuple[Tensor, Tensor, Tensor]], Callable[..., Tensor]] | None = None

    def forward(
        self, hidden: Tensor, rotation: Rotation | None, span: Span, layer: int, keep: slice | None = None
    ) -> Tensor:
        stream = hidden if keep is None else hidden[..., keep, :]
        # Compiled functions have no forward derivative, which MeanFlow's estimator asks for.
        if self._compiled is not None and not _has_tangent(hidden):
            before, after = self._compiled
            query, key, value = before(hidden, rotation, keep)
            return after(stream, attend(query, key, value, span, layer=layer))
        attended = self.self_attn(self.input_layernorm(hidden), rotation, span, layer=layer, keep=keep)
        return self._with_mlp(stream + self._scaled(attended))

    def compile_around_attention(self, backend: str, options: CompileOptions) -> None:
        """Compiles what stands before and after the attention; `attend` itself is one kernel, or a loop over documents.

        Row lengths are symbols: a row of another length compiles nothing again.
        """
        self._compiled = (
            torch.compile(self._before_attention, dynamic=True, backend=backend, options=options),
            torch.compile(self._after_attention, dynamic=True, backend=backend, options=options),
        )

    def _before_attention(
        self, hidden: Tensor, rotation: Rotation | None, keep: slice | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.self_attn.heads(self.input_layernorm(hidden), rotation, keep)

    def _after_attention(self, stream: Tensor, attended: Tensor) -> Tensor:
        return self._with_mlp(stream + self._scaled(self.self_attn.o_proj(attended.flatten(-2))))

    def _with_mlp(self, stream: Tensor) -> Tensor:
        return stream + self._scaled(self.mlp(self.post_attention_layernorm(stream)))

    def _scaled(self, branch: Tensor) -> Tensor:
        return branch if self.residual_scale == 1.0 else branch * self.residual_scale


class MiniCPM(nn.Module):
    """A stack of layers and its final norm.

    `recompute` trades time for memory in training: the activations of so many layers, the first ones, are computed
    again in the backward pass instead of kept. That pass reaches them last, when those that were kept are freed.
    """

    def __init__(self, config: LanguageModelConfig, *, max_positions: int | None = None) -> None:
        super().__init__()
        self.config = config
        if config.vocab_size:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        length = max_positions or config.max_position_embeddings
        self.rotary = None if config.no_rope else RotaryTable(config, length=length)
        self.recompute = 0

    def embed(self, tokens_N: Tensor) -> Tensor:
        """Text embeddings [..., C], times `scale_emb` under muP."""
        embedded: Tensor = self.embed_tokens(tokens_N)
        return embedded * self.config.scale_emb if self.config.use_mup else embedded

    def rotation(self, hidden: Tensor, span: Span) -> Rotation | None:
        """Each token's rotation; None where the stack has no positional encoding."""
        if self.rotary is None:
            return None
        if isinstance(span, Packed):
            rotation: Rotation = self.rotary(span.documents.positions_N)
        elif isinstance(span, Step):
            rotation = self.rotary(span.positions_R)
        else:
            rotation = self.rotary.first(hidden.shape[-2])
        return rotation

    def forward(self, hidden: Tensor, span: Span, *, keep: slice | None = None) -> Tensor:
        """Hidden states [..., C] in, the normalised last hidden states out.

        Args:
            hidden: [B, T, C] (Bidirectional), [N, C] (Packed) or [R, C] (Step).
            keep: tokens of dimension -2 whose output is read; Bidirectional only. None: all.
        """
        rotation = self.rotation(hidden, span)
        last = len(self.layers) - 1
        # A recomputed layer would lose its forward derivative, so MeanFlow's estimator keeps its activations.
        recomputed = self.recompute if self.recompute and torch.is_grad_enabled() and not _has_tangent(hidden) else 0
        for index, layer in enumerate(self.layers):
            wanted = keep if index == last else None
            if index < recomputed:
                hidden = checkpoint(layer, hidden, rotation, span, index, wanted, use_reentrant=False)
            else:
                hidden = layer(hidden, rotation, span, index, wanted)
        result: Tensor = self.norm(hidden)
        return result


def _has_tangent(hidden: Tensor) -> bool:
    return unpack_dual(hidden).tangent is not None


def recomputed_layers(share: float, layers: int) -> int:
    """How many of a stack's layers are computed again at this share of them, 0..1: at least the share."""
    return math.ceil(share * layers - 1e-9)


def recompute_layers(model: nn.Module, share: float) -> None:
    """Sets `MiniCPM.recompute` of every stack in `model` to this share of its layers, 0..1."""
    for stack in model.modules():
        if isinstance(stack, MiniCPM):
            stack.recompute = recomputed_layers(share, len(stack.layers))


def compile_layers(model: nn.Module, *, backend: str = "inductor") -> None:
    """Compiles every layer of `model` but its attention, for training; where activations are recomputed, too.

    Dropout draws the same numbers as without. The first rows take minutes; each combination of stack, precision and
    mode is compiled once and shared by the stack's layers.
    """
    # One code object serves all stacks, with and without gradients; the default of 8 variants would silently leave
    # what comes after them uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    options: CompileOptions = {"fallback_random": True} if backend == "inductor" else None
    for layer in model.modules():
        if isinstance(layer, Layer):
            layer.compile_around_attention(backend, options)
