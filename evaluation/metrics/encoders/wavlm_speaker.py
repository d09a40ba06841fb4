"""WavLM-large SV, the speaker encoder of Seed-TTS-Eval's SIM (arXiv:2110.13900): UniSpeech's wavlm_large_finetune.pth.

All 25 hidden states of WavLM (transformers' `WavLMModel`), summed by learned weights, are the input of an ECAPA-TDNN.
The file has fairseq's tensor names, which are mapped to transformers'. The file itself was not at hand: names, shapes,
parameter count and the output on weights drawn at random are those of the published code, and the hidden states those
of torchaudio's WavLM too.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.metrics.encoders.ecapa_tdnn import EcapaTdnn
from voxmill.core.tensor_files import check_state, read_state

if TYPE_CHECKING:
    from transformers import WavLMConfig

WHAT = "WavLM-large SV (UniSpeech's wavlm_large_finetune.pth)"
SSL = "feature_extract.model."
HEAD = ("layer1.", "layer2.", "layer3.", "layer4.", "conv.", "pooling.", "bn.", "linear.")

# transformers' names as patterns, fairseq's.
_NAMES = tuple(
    (re.compile(transformers_name), fairseq_name)
    for transformers_name, fairseq_name in (
        (r"masked_spec_embed", "mask_emb"),
        (r"feature_projection\.layer_norm\.(\w+)", r"layer_norm.\1"),
        (r"feature_projection\.projection\.(\w+)", r"post_extract_proj.\1"),
        (r"feature_extractor\.conv_layers\.(\d+)\.conv\.(\w+)", r"feature_extractor.conv_layers.\1.0.\2"),
        (r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.(\w+)", r"feature_extractor.conv_layers.\1.2.1.\2"),
        (r"encoder\.layer_norm\.(\w+)", r"encoder.layer_norm.\1"),
        (r"encoder\.pos_conv_embed\.conv\.bias", "encoder.pos_conv.0.bias"),
        (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "encoder.pos_conv.0.weight_g"),
        (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "encoder.pos_conv.0.weight_v"),
        (r"(encoder\.layers\.\d+)\.attention\.((?:k|v|q|out)_proj\.\w+)", r"\1.self_attn.\2"),
        (r"(encoder\.layers\.\d+)\.attention\.gru_rel_pos_linear\.(\w+)", r"\1.self_attn.grep_linear.\2"),
        (r"(encoder\.layers\.\d+)\.attention\.gru_rel_pos_const", r"\1.self_attn.grep_a"),
        (r"(encoder\.layers\.\d+)\.attention\.rel_attn_embed\.weight", r"\1.self_attn.relative_attention_bias.weight"),
        (r"(encoder\.layers\.\d+)\.layer_norm\.(\w+)", r"\1.self_attn_layer_norm.\2"),
        (r"(encoder\.layers\.\d+)\.feed_forward\.intermediate_dense\.(\w+)", r"\1.fc1.\2"),
        (r"(encoder\.layers\.\d+)\.feed_forward\.output_dense\.(\w+)", r"\1.fc2.\2"),
        (r"(encoder\.layers\.\d+)\.final_layer_norm\.(\w+)", r"\1.final_layer_norm.\2"),
    )
)


def large() -> "WavLMConfig":
    """WavLM-large (arXiv:2110.13900, table 10): 24 layers of 1024, layer norm first, 320 position buckets up to 800."""
    from transformers import WavLMConfig

    return WavLMConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_buckets=320,
        max_bucket_distance=800,
        apply_spec_augment=True,
        layerdrop=0.0,
    )


class WavLMSpeaker(nn.Module):
    """Audio [B,T] at 16 kHz to embeddings [B,256] (not normalised)."""

    def __init__(self, config: "WavLMConfig"):
        super().__init__()
        from transformers import WavLMModel

        self.wavlm: Any = WavLMModel(config)
        self.feature_weight = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.head = EcapaTdnn(config.hidden_size)

    @classmethod
    def load(cls, path: Path, config: "WavLMConfig | None" = None) -> "WavLMSpeaker":
        """Reads the published file; tensors only, nothing is executed. Tensors that only training needs are skipped.

        Args:
            config: of another size than WavLM-large, for tests.

        Raises:
            UserError: the file cannot be read or is another; names the first wrong key.
        """
        # The official scorer loads with strict=False: the file may hold the classifier that it was trained with.
        kept = (SSL, "feature_weight", *HEAD)
        state = {
            name: value
            for name, value in read_state(path, setting="--sim ", what=WHAT).items()
            if name.startswith(kept)
        }
        model = cls(config or large())
        state_dict = model.state_dict()
        expected = {published_name(name): tensor for name, tensor in state_dict.items()}
        check_state(state, expected, path, setting="--sim ", what=WHAT)
        model.load_state_dict({name: state.get(published_name(name), tensor) for name, tensor in state_dict.items()})
        return model.eval()

    def hidden_states(self, audio_BT: Tensor) -> list[Tensor]:
        """WavLM's hidden states [B,L,D], input of the first layer first; each clip is normalised as in training."""
        normal_BT = F.layer_norm(audio_BT, audio_BT.shape[1:])
        features_BLC = self.wavlm.feature_extractor(normal_BT).transpose(1, 2)
        x_BLD, _ = self.wavlm.feature_projection(features_BLC)
        # Layer by layer: `output_hidden_states` of transformers 5 gives others than the published code's (embeddings of
        # the tests' weights came out 0.009 off).
        encoder, bias = self.wavlm.encoder, None
        x_BLD = x_BLD + encoder.pos_conv_embed(x_BLD)
        states = [x_BLD]
        for layer in encoder.layers:
            x_BLD, bias = layer(x_BLD, position_bias=bias)
            states.append(x_BLD)
        states[-1] = encoder.layer_norm(x_BLD)
        return states

    def forward(self, audio_BT: Tensor) -> Tensor:
        states_NBLD = torch.stack(self.hidden_states(audio_BT))
        weights_N = self.feature_weight.softmax(0)
        sum_BDL = torch.einsum("n,nbld->bdl", weights_N, states_NBLD) + 1e-6
        embedding_BE: Tensor = self.head(F.instance_norm(sum_BDL))
        return embedding_BE


def published_name(name: str) -> str:
    """The published file's name of a tensor of `WavLMSpeaker`."""
    if name.startswith("head."):
        return name.removeprefix("head.")
    if name == "feature_weight":
        return name
    for pattern, theirs in _NAMES:
        match = pattern.fullmatch(name.removeprefix("wavlm."))
        if match:
            return SSL + match.expand(theirs)
    raise AssertionError(f"{name} has no name in fairseq")
