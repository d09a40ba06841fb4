"""Weights laid out once for the CPU's matrix kernels, for inference only.

`F.linear` lays a weight out again in every call, which costs a third of the time of the small products that generation
consists of (22 rows in LocDiT, one a request in the LMs). Here the layout is made once, by oneDNN. A row's product then
does not depend on the rows beside it, to the last bit, nor does a request's result on its batch.

The twin is a snapshot: it shares norms, embeddings and tables with the module that it was made from, not its weights.
"""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers.transformer import MLP

ROWS_HINT = 32
"""The layout is chosen for about this many rows; measured to be equally fast for 1 to 700."""

M = TypeVar("M", bound=nn.Module)


class PackedLinear(nn.Module):
    """y = x W' + b, with an activation or a product with another tensor done while y is still in the registers."""

    packed: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        with torch.no_grad():
            weight = linear.weight.detach().contiguous()
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)
        # A plain attribute: the layout is opaque, so neither `.to()` nor a state dict may touch it.
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, hidden: Tensor) -> Tensor:
        return _as_of_many(self._activated, hidden, "none")

    def silu(self, hidden: Tensor) -> Tensor:
        """silu(x W' + b)."""
        return _as_of_many(self._activated, hidden, "swish")

    def times(self, hidden: Tensor, other: Tensor) -> Tensor:
        """(x W' + b) * other."""
        return _as_of_many(self._multiplied, hidden, other)

    def _activated(self, hidden: Tensor, activation: str) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(hidden, self.packed, self.bias, activation, [], "")  # type: ignore[no-any-return]

    def _multiplied(self, hidden: Tensor, other: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(hidden, other, self.packed, self.bias, "mul")  # type: ignore[no-any-return]


def _as_of_many(product: Callable[..., Tensor], hidden: Tensor, *others: Any) -> Tensor:
    """A single row is multiplied twice: for one row the kernel sums in another order, for two as for any number."""
    if hidden.numel() != hidden.shape[-1]:
        return product(hidden, *others)
    rows = [x.expand(*x.shape[:-2], 2, -1).contiguous() if isinstance(x, Tensor) else x for x in (hidden, *others)]
    return product(*rows)[..., :1, :]


class PackedMLP(nn.Module):
    """SwiGLU in three calls."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            PackedLinear(linear) for linear in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.down_proj(self.up_proj.times(hidden, self.gate_proj.silu(hidden)))
        return result


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine's PyTorch has the kernels for `dtype`, tested by a small product."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    weight, rows = (torch.linspace(-1, 1, 16 * n, dtype=dtype).view(n, 16) for n in (8, 4))
    linear = nn.utils.skip_init(nn.Linear, 16, 8, bias=False, dtype=dtype)  # no draw from the global generator
    linear.weight = nn.Parameter(weight)
    try:
        product = PackedLinear(linear)(rows)
    except (AttributeError, NotImplementedError, RuntimeError):  # another build of PyTorch, another kind of processor
        return False
    return torch.allclose(product.float(), F.linear(rows, weight).float(), atol=5e-2)


def packed(module: M) -> M:
    """A twin of `module` for inference with packed weights, sharing every other tensor.

    Linears of another class (LoRA's) stay as they are, as does everything where `can_pack` is False.
    """
    first = next(module.parameters())
    if first.device.type != "cpu" or not can_pack(first.dtype):
        return module
    twins: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    for part in module.modules():
        if type(part) is nn.Linear:
            twins[id(part)] = PackedLinear(part)
        elif type(part) is MLP and all(type(linear) is nn.Linear for linear in part.children()):
            twins[id(part)] = PackedMLP(part)
    return copy.deepcopy(module, twins)
