"""emotion2vec+ (Ma et al. 2024, arXiv:2312.15185) in FunASR's format: `config.yaml`, `tokens.txt`, `model.pt`.

data2vec 2's encoder of audio (convolutions, positions by convolution, attention with ALiBi) and a projection of the
mean over time to the emotions of `tokens.txt`. FunASR itself evaluates a string of the configuration; here it is
parsed, and the file of weights may hold nothing but tensors. No published weights were at hand: names, shapes and the
output on weights drawn at random are those of FunASR's code.

Apart from `emotion.py`, so that reading its configuration does not import torch.
"""

import ast
import math
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from voxmill.core.errors import UserError
from voxmill.core.tensor_files import check_state, read_state

WHAT = "emotion2vec+, as FunASR has it"
FILES = ("config.yaml", "tokens.txt", "model.pt")
_ENCODER = "modality_encoders.AUDIO."
# Parts that only training has.
_TRAINING = (f"{_ENCODER}decoder.", "_ema.", "ema.", "recon_proj.", "classification_head.")
_CONVOLUTIONS = re.compile(r"[\[\]()\d,+* ]+")


class AudioSize(BaseModel):
    """`model_conf.modalities.audio` of a configuration, as far as inference goes; the rest is of training."""

    feature_encoder_spec: str
    extractor_mode: str
    conv_pos_width: int
    conv_pos_groups: int
    conv_pos_depth: int
    conv_pos_pre_ln: bool = False
    prenet_depth: int
    num_extra_tokens: int
    use_alibi_encoder: bool
    learned_alibi: bool = False
    learned_alibi_scale_per_head: bool = False
    learned_alibi_scale_per_layer: bool = False


class Emotion2vecSize(BaseModel):
    """`model_conf` of a configuration, likewise."""

    class Modalities(BaseModel):
        """Only one is there."""

        audio: AudioSize

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    norm_eps: float
    norm_affine: bool = True
    layer_norm_first: bool
    normalize: bool = False
    modalities: Modalities


def funasr_folder(place: str) -> str | None:
    """The folder of a model in FunASR's format, by path or hub id; None for another format."""
    folder = Path(place)
    if folder.is_dir():
        return place if (folder / FILES[0]).is_file() and not (folder / "config.json").is_file() else None
    if folder.exists() or place.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(place, allow_patterns=["config.json", FILES[0]]))
        if (found / "config.json").is_file() or not (found / FILES[0]).is_file():
            return None
        return str(snapshot_download(place, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        # Loading it next as a model of transformers, which it may be, names what is wrong.
        return None


class Emotion2vec:
    """Probabilities of the emotions of `tokens.txt`, one clip at a time; classes that are not in use are left out.

    Raises:
        UserError: a file is not there, is not of emotion2vec+, or holds more than tensors.
    """

    def __init__(self, folder: Path, device: str):
        size, tokens = read_size(folder / FILES[0]), read_tokens(folder / FILES[1])
        self._used = [i for i, token in enumerate(tokens) if not token.startswith("unuse")]
        self.labels = [tokens[i] for i in self._used]
        self._device, self._normalize = device, size.normalize
        network, path = Emotion2vecNetwork(size, len(tokens)), folder / FILES[2]
        state = {name: value for name, value in read_state(path, what=WHAT).items() if not name.startswith(_TRAINING)}
        check_state(state, network.state_dict(), path, what=WHAT)
        network.load_state_dict(state)
        self._network = network.to(device).eval()

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """Float32 [classes] that add up to 1, of float32 [samples] at 16 kHz in -1..1."""
        audio_T = torch.from_numpy(np.ascontiguousarray(clip, dtype=np.float32)).to(self._device)
        with torch.inference_mode():
            if self._normalize:
                audio_T = F.layer_norm(audio_T, audio_T.shape)
            logits_C = self._network(audio_T[None])[0, self._used]
            scores: np.ndarray = logits_C.float().softmax(-1).cpu().numpy()
        return scores


def read_size(path: Path) -> Emotion2vecSize:
    """Sizes of a configuration's network.

    Raises:
        UserError: it cannot be read, is of another model, or of a variant that was never published.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("model") != "Emotion2vec":
            name = values.get("model") if isinstance(values, dict) else None
            raise UserError(f"{path}: is of {name or 'no model'}, not of Emotion2vec; name a folder of {WHAT}")
        size = Emotion2vecSize.model_validate(values.get("model_conf"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: no configuration of {WHAT} ({reason})") from None
    audio = size.modalities.audio
    other = [
        name
        for name, differs in (
            ("layer_norm_first", size.layer_norm_first),
            ("extractor_mode", audio.extractor_mode != "layer_norm"),
            ("conv_pos_pre_ln", audio.conv_pos_pre_ln),
            ("use_alibi_encoder", not audio.use_alibi_encoder),
            ("learned_alibi", audio.learned_alibi),
            ("learned_alibi_scale_per_layer", audio.learned_alibi_scale_per_layer),
        )
        if differs
    ]
    if other:
        raise UserError(f"{path}: {other[0]} is another than in the published models; this one cannot be loaded")
    return size


def read_tokens(path: Path) -> list[str]:
    """Labels of the classes, one a line.

    Raises:
        UserError: it cannot be read, or is empty.
    """
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it has the labels of {WHAT}, one a line") from None
    while tokens and not tokens[-1].strip():
        tokens.pop()
    if not tokens:
        raise UserError(f"{path}: is empty; it has the labels of {WHAT}, one a line")
    return [token.strip() for token in tokens]


def convolutions(text: str) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) of each convolution, of a list written like `[(512, 10, 5)] + [(512, 3, 2)] * 4`.

    Raises:
        UserError: it is something else; nothing is executed.
    """

    def value(node: ast.expr) -> list[tuple[int, int, int]]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return value(node.left) + value(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            times = ast.literal_eval(node.right)
            if isinstance(times, int) and 0 < times <= 16:
                return value(node.left) * times
        elif isinstance(node, ast.List):
            layers = ast.literal_eval(node)
            if all(isinstance(layer, tuple) and len(layer) == 3 for layer in layers):
                return [(int(width), int(kernel), int(stride)) for width, kernel, stride in layers]
        raise ValueError("not such a list")

    try:
        if len(text) > 1000 or _CONVOLUTIONS.fullmatch(text) is None:
            raise ValueError("not such a list")
        return value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError, TypeError, RecursionError) as error:
        raise UserError(f"feature_encoder_spec of {WHAT}: {text[:60]!r} is no list of convolutions ({error})") from None


class Emotion2vecNetwork(nn.Module):
    """Audio [B,T] at 16 kHz to logits [B,classes]; names of its tensors are those of FunASR's files."""

    def __init__(self, size: Emotion2vecSize, num_classes: int):
        super().__init__()
        self.modality_encoders = nn.ModuleDict({"AUDIO": _Encoder(size)})
        self.blocks = nn.ModuleList([_Block(size) for _ in range(size.depth)])
        self.proj = nn.Linear(size.embed_dim, num_classes)
        self._num_extra = size.modalities.audio.num_extra_tokens

    def forward(self, audio_BT: Tensor) -> Tensor:
        x_BTD, bias_HTT = self.modality_encoders["AUDIO"](audio_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, bias_HTT)
        logits_BC: Tensor = self.proj(x_BTD[:, self._num_extra :].mean(1))
        return logits_BC


class _Encoder(nn.Module):
    """Audio [B,T] to features [B,extra + frames,D], and attention's bias by distance [heads,..,..]."""

    def __init__(self, size: Emotion2vecSize):
        super().__init__()
        audio, width = size.modalities.audio, size.embed_dim
        layers = convolutions(audio.feature_encoder_spec)
        self.local_encoder = nn.Module()
        self.local_encoder.conv_layers = nn.ModuleList(
            [
                _Convolution(inputs, *layer)
                for inputs, layer in zip([1, *(layer[0] for layer in layers)], layers, strict=False)
            ]
        )
        self.project_features = nn.Sequential(
            nn.Identity(), nn.LayerNorm(layers[-1][0]), nn.Linear(layers[-1][0], width)
        )
        kernel = max(3, audio.conv_pos_width // audio.conv_pos_depth)
        self.relative_positional_encoder = nn.ModuleList(
            [
                nn.Identity(),
                *[_Position(width, kernel, audio.conv_pos_groups) for _ in range(audio.conv_pos_depth)],
            ]
        )
        self.extra_tokens = nn.Parameter(torch.zeros(1, audio.num_extra_tokens, width))
        heads = size.num_heads if audio.learned_alibi_scale_per_head else 1
        self.alibi_scale = nn.Parameter(torch.ones(1, 1, heads, 1, 1))
        self.context_encoder = nn.Module()
        self.context_encoder.blocks = nn.ModuleList([_Block(size) for _ in range(audio.prenet_depth)])
        self.context_encoder.norm = _norm(size)
        self.register_buffer("slopes", torch.tensor(alibi_slopes(size.num_heads)), persistent=False)

    def forward(self, audio_BT: Tensor) -> tuple[Tensor, Tensor]:
        x_BDT = audio_BT[:, None]
        for convolution in self.local_encoder.conv_layers:  # type: ignore[union-attr]
            x_BDT = convolution(x_BDT)
        x_BTD = self.project_features(x_BDT.transpose(1, 2))
        place_BDT = x_BTD.transpose(1, 2)
        for position in self.relative_positional_encoder:
            place_BDT = position(place_BDT)
        x_BTD = x_BTD + place_BDT.transpose(1, 2)
        frames = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        slopes: Tensor = self.slopes  # type: ignore[assignment]
        bias_HTT = -slopes[:, None, None] * (frames[:, None] - frames).abs()
        bias_HTT = bias_HTT * self.alibi_scale[0, 0].clamp_min(0)
        num_extra = self.extra_tokens.shape[1]
        bias_HTT = F.pad(bias_HTT, (num_extra, 0, num_extra, 0))
        x_BTD = torch.cat([self.extra_tokens.expand(len(x_BTD), -1, -1), x_BTD], dim=1)
        x_BTD = self.context_encoder.norm(x_BTD)  # type: ignore[operator]
        for block in self.context_encoder.blocks:  # type: ignore[union-attr]
            x_BTD = block(x_BTD, bias_HTT)
        return x_BTD, bias_HTT


def alibi_slopes(heads: int) -> list[float]:
    """Slope of each head's bias (Press et al. 2022); of a number that is no power of two, those of two such numbers."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    return slopes if power == heads else slopes + alibi_slopes(2 * power)[0::2][: heads - power]


class _Convolution(nn.Sequential):
    def __init__(self, inputs: int, width: int, kernel: int, stride: int):
        norm = nn.Sequential(nn.Identity(), nn.LayerNorm(width))
        super().__init__(nn.Conv1d(inputs, width, kernel, stride=stride, bias=False), nn.Identity(), norm)

    def forward(self, x_BDT: Tensor) -> Tensor:
        convolution, _, norm = self
        return F.gelu(norm(convolution(x_BDT).transpose(1, 2)).transpose(1, 2))


class _Position(nn.Sequential):
    def __init__(self, width: int, kernel: int, groups: int):
        super().__init__(nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups))

    def forward(self, x_BDT: Tensor) -> Tensor:
        (convolution,) = self
        # An even kernel gives one frame too many.
        y_BTD = convolution(x_BDT)[..., : x_BDT.shape[-1]].transpose(1, 2)
        return F.gelu(F.layer_norm(y_BTD, y_BTD.shape[-1:])).transpose(1, 2)


def _norm(size: Emotion2vecSize) -> nn.LayerNorm:
    return nn.LayerNorm(size.embed_dim, eps=size.norm_eps, elementwise_affine=size.norm_affine)


class _Block(nn.Module):
    def __init__(self, size: Emotion2vecSize):
        super().__init__()
        width, hidden = size.embed_dim, int(size.embed_dim * size.mlp_ratio)
        self.norm1, self.norm2 = _norm(size), _norm(size)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self._heads = size.num_heads

    def forward(self, x_BTD: Tensor, bias_HTT: Tensor) -> Tensor:
        q, k, v = self.attn.qkv(x_BTD).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)  # type: ignore[operator]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_HTT.to(q.dtype)).transpose(1, 2).flatten(2)
        x_BTD = self.norm1(x_BTD + self.attn.proj(attended))  # type: ignore[operator]
        y_BTD: Tensor = self.norm2(x_BTD + self.mlp.fc2(F.gelu(self.mlp.fc1(x_BTD))))  # type: ignore[operator]
        return y_BTD
