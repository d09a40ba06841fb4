"""The MiniCPM-4 block: pre-norm, grouped-query attention, SwiGLU, RoPE or none, muP's two scales where asked for.

TSLM, RALM, LocEnc and LocDiT are four instances (report 3.3.1, spec 2.1). Different here: a stack runs on flat packed
tokens, on short sequences or on one token a request, depending on its `Span`; and the last layer computes only the
tokens whose output is read (`keep`).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.utils.checkpoint import checkpoint

from model.config import LanguageModelConfig
from model.layers.attention import Packed, Span, Step, attend
from model.layers.rope import RotaryTable, Rotation, rotate


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
        heads = (-1, self.head_dim)
        kept = hidden if keep is None else hidden[..., keep, :]
        query = self.q_proj(kept).unflatten(-1, heads)
        key = self.k_proj(hidden).unflatten(-1, heads)
        value = self.v_proj(hidden).unflatten(-1, heads)
        if rotation is not None:
            cos, sin = rotation
            query = rotate(query, rotation if keep is None else (cos[..., keep, :, :], sin[..., keep, :, :]))
            key = rotate(key, rotation)
        result: Tensor = self.o_proj(attend(query, key, value, span, layer=layer).flatten(-2))
        return result


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

    def forward(
        self, hidden: Tensor, rotation: Rotation | None, span: Span, layer: int, keep: slice | None = None
    ) -> Tensor:
        stream = hidden if keep is None else hidden[..., keep, :]
        attended = self.self_attn(self.input_layernorm(hidden), rotation, span, layer=layer, keep=keep)
        stream = stream + self._scaled(attended)
        return stream + self._scaled(self.mlp(self.post_attention_layernorm(stream)))

    def _scaled(self, branch: Tensor) -> Tensor:
        return branch if self.residual_scale == 1.0 else branch * self.residual_scale


class MiniCPM(nn.Module):
    """A stack of layers and its final norm.

    `recompute` trades time for memory in training: a layer's activations are computed again in the backward pass
    instead of kept.
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
        self.recompute = False

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
        recompute = self.recompute and torch.is_grad_enabled() and unpack_dual(hidden).tangent is None
        for index, layer in enumerate(self.layers):
            wanted = keep if index == last else None
            if recompute:
                hidden = checkpoint(layer, hidden, rotation, span, index, wanted, use_reentrant=False)
            else:
                hidden = layer(hidden, rotation, span, index, wanted)
        result: Tensor = self.norm(hidden)
        return result
