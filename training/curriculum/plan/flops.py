"""Floating-point operations of a packed row, counted from the module tree, and the peak of GPUs.

Model FLOPs, as in PaLM (arXiv 2204.02311, appendix B): every product of the loss and of its gradient once, whatever is
computed again to save memory; 2 for a multiplication and an addition. Norms, activations and the embedding are not
counted. Attention is counted over the pairs that see each other: past positions of one document in the language models,
all pairs of a patch in LocEnc and LocDiT.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from model.layers.transformer import Layer, MiniCPM
from model.lora import LoRALinear
from model.sequence.packing import PackedBatch
from model.voxcpm2 import VoxCPM2

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
}
"""Dense bf16 by a part of the GPU's name, the more exact name first, from NVIDIA's data sheets."""


def peak_flops(device_name: str) -> float | None:
    """Peak bf16 FLOPs a second of the GPU of this name (`torch.cuda.get_device_name`); None: not known."""
    words = device_name.replace("-", " ").split()
    for name, tera in PEAK_TFLOPS.items():
        if set(name.split()) <= set(words):
            return tera * 1e12
    return None


@dataclass(frozen=True)
class RowFlops:
    """Forward and backward FLOPs of a row: for each position, audio input, target patch, and pair of positions."""

    position: float
    audio: float
    target: float
    pair: float

    @classmethod
    def of(cls, model: VoxCPM2) -> "RowFlops":
        """Of this model with its weights as they are trained now: a frozen weight has no gradient to compute."""
        size, dit = model.config.patch_size, model.feat_decoder.estimator
        # MeanFlow's derivative along the path is one more forward of the estimator, which no gradient goes through.
        forwards = 2 if model.config.dit_config.dit_mean_mode else 1
        # Under LoRA no weight in LocEnc is trained, and no gradient goes into it.
        is_frozen = not any(parameter.requires_grad for parameter in model.feat_encoder.parameters())
        audio = (
            _linear(model.feat_encoder.in_proj, size, reads_data=True)
            + _local(model.feat_encoder.encoder, tokens=size + 1, kept=1, reads_data=is_frozen)
            + _linear(model.enc_to_lm_proj, reads_data=is_frozen)
            + sum(_linear(linear) for linear in (model.fsq_layer.in_proj, model.fsq_layer.out_proj))
        )
        times = sum(
            _linear(mlp.linear_1, reads_data=True, forwards=forwards) + _linear(mlp.linear_2, forwards=forwards)
            for mlp in (dit.time_mlp, dit.delta_time_mlp)
        )
        target = (
            sum(_linear(linear) for linear in (model.lm_to_dit_proj, model.res_to_dit_proj))
            + sum(_linear(linear) for linear in (model.stop_proj, model.stop_head))
            + times
            + sum(_linear(linear, size, reads_data=True, forwards=forwards) for linear in (dit.in_proj, dit.cond_proj))
            + _local(dit.decoder, tokens=3 + 2 * size, kept=size, forwards=forwards)
            + _linear(dit.out_proj, size, forwards=forwards)
        )
        stacks = (model.base_lm, model.residual_lm)
        return cls(
            position=_linear(model.fusion_concat_proj) + sum(_linear(m) for s in stacks for m in _linears(s)),
            audio=audio,
            target=target,
            pair=sum(_attention(layer) for stack in stacks for layer in stack.layers),
        )

    def __call__(self, batch: PackedBatch) -> float:
        """FLOPs of this row."""
        pairs = sum(length * (length + 1) // 2 for length in batch.documents.lengths)
        return (
            self.position * len(batch.tokens_N)
            + self.audio * len(batch.audio_APD)
            + self.target * len(batch.target_GPD)
            + self.pair * pairs
        )


def _linears(module: nn.Module) -> Iterable[nn.Module]:
    return (part for part in module.modules() if isinstance(part, (nn.Linear, LoRALinear)))


def _linear(linear: nn.Module, rows: int = 1, *, reads_data: bool = False, forwards: int = 1) -> float:
    """Of a linear layer over `rows` tokens. `reads_data`: its input has no gradient."""
    assert isinstance(linear, (nn.Linear, LoRALinear))
    weights = [linear.weight, *((linear.lora_A, linear.lora_B) if isinstance(linear, LoRALinear) else ())]
    # Under ZeRO 3 a weight may be empty where it is not gathered; DeepSpeed keeps its true size.
    sizes = [float(getattr(weight, "ds_numel", weight.numel())) for weight in weights]
    learnt = sum(size for size, weight in zip(sizes, weights, strict=True) if weight.requires_grad)
    return 2.0 * rows * (sum(sizes) * (forwards + (0 if reads_data else 1)) + learnt)


def _local(stack: MiniCPM, *, tokens: int, kept: int, forwards: int = 1, reads_data: bool = False) -> float:
    """Of a stack over one patch of `tokens`; its last layer computes only `kept` of them."""
    total = 0.0
    for index, layer in enumerate(stack.layers):
        assert isinstance(layer, Layer)
        asking = kept if index == len(stack.layers) - 1 else tokens
        attention = layer.self_attn
        for linear in _linears(layer):
            reads_all = linear is attention.k_proj or linear is attention.v_proj
            total += _linear(linear, tokens if reads_all else asking, forwards=forwards, reads_data=reads_data)
        total += _attention(layer, forwards, 0 if reads_data else 2) * asking * tokens
    return total


def _attention(layer: nn.Module, forwards: int = 1, backwards: int = 2) -> float:
    """Of one query and one key: two products of head_dim a head, and twice as many for the gradients."""
    assert isinstance(layer, Layer)
    query = layer.self_attn.q_proj
    assert isinstance(query, (nn.Linear, LoRALinear))
    width = getattr(query.weight, "ds_shape", query.weight.shape)[0]
    return 4.0 * width * (forwards + backwards)
