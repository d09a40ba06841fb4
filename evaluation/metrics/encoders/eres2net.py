"""ERes2Net, the speaker encoder of CV3-Eval's SIM (Chen et al. 2023, arXiv:2305.12838; 3D-Speaker, Apache-2.0).

Written from the paper and the names of 3D-Speaker's tensors. One class holds the released sizes, which a file's own
shapes tell apart: base and large differ in width, and the one for 200k speakers (`eres2net_sv_zh-cn_16k-common`) has
blocks of three branches and four times as many channels out as in. No released weights were at hand: names, shapes,
parameter counts and the output on weights drawn at random are those of 3D-Speaker's own code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxmill.core.errors import UserError
from voxmill.core.tensor_files import check_state, read_state

NUM_MELS = 80
BLOCKS = (3, 4, 6, 3)


@dataclass(frozen=True)
class ERes2NetSize:
    """`width`: channels of the first layer. `expansion`: channels out of a block over its planes; `scale`: branches.

    `base_width`: channels of a branch of 64 planes. `two_layers`: a second linear layer after the first embedding.
    """

    width: int = 32
    embedding: int = 192
    expansion: int = 2
    scale: int = 2
    base_width: int = 32
    two_layers: bool = False


class ERes2Net(nn.Module):
    """Log mel features [B,T,80] with zero mean over time to embeddings [B,D] (not normalised)."""

    def __init__(self, size: ERes2NetSize):
        super().__init__()
        width, out = size.width, size.expansion
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, (count, fuses) in enumerate(zip(BLOCKS, (False, False, True, True), strict=True)):
            planes = width * 2**stage
            blocks = []
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                blocks.append(_Block(channels, planes, stride, size, fuses))
                channels = planes * out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        # Each stage's sum is brought to the next one's scale and fused with it.
        for stage, name in enumerate(("12", "123", "1234")):
            below = width * out * 2**stage
            down = nn.Conv2d(below, 2 * below, 3, stride=2, padding=1, bias=False)
            self.add_module(f"layer{stage + 1}_downsample", down)
            self.add_module(f"fuse_mode{name}", _Fusion(2 * below))
        # Three halvings leave an eighth of the bands; mean and deviation of each.
        self.seg_1 = nn.Linear(channels * (NUM_MELS // 8) * 2, size.embedding)
        self.seg_bn_1: nn.Module = nn.Identity()
        self.seg_2: nn.Module = nn.Identity()
        self.two_layers = size.two_layers
        if size.two_layers:
            self.seg_bn_1 = nn.BatchNorm1d(size.embedding, affine=False)
            self.seg_2 = nn.Linear(size.embedding, size.embedding)

    @classmethod
    def load(cls, path: Path) -> "ERes2Net":
        """Reads released weights of any of the sizes; tensors only, nothing is executed.

        Raises:
            UserError: the file cannot be read or is not ERes2Net; names the first wrong key.
        """
        state = read_state(path, setting="--sim ", what="ERes2Net")
        model = cls(_size_of(path, state))
        check_state(state, model.state_dict(), path, setting="--sim ", what="ERes2Net")
        model.load_state_dict(model.state_dict() | state)
        return model.eval()

    def forward(self, mel_BTF: Tensor) -> Tensor:
        x_BCFT = F.relu(self.bn1(self.conv1(mel_BTF.transpose(1, 2)[:, None])))
        fused = None
        for stage, name in enumerate(("", "12", "123", "1234")):
            x_BCFT = self.get_submodule(f"layer{stage + 1}")(x_BCFT)
            if stage:
                below = self.get_submodule(f"layer{stage}_downsample")(fused)
                fused = self.get_submodule(f"fuse_mode{name}")(x_BCFT, below)
            else:
                fused = x_BCFT
        assert fused is not None
        moments = torch.cat([fused.mean(-1).flatten(1), (fused.var(-1) + 1e-8).sqrt().flatten(1)], dim=1)
        first = self.seg_1(moments)
        embedding_BD: Tensor = self.seg_2(self.seg_bn_1(F.relu(first))) if self.two_layers else first
        return embedding_BD


class _Block(nn.Module):
    """A residual block of `scale` branches, each of which takes the output of the one before: summed, or fused."""

    def __init__(self, channels: int, planes: int, stride: int, size: ERes2NetSize, fuses: bool):
        super().__init__()
        self.branch = planes * size.base_width // 64
        inner, out = self.branch * size.scale, planes * size.expansion
        self.conv1 = nn.Conv2d(channels, inner, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.convs = nn.ModuleList(
            nn.Conv2d(self.branch, self.branch, 3, padding=1, bias=False) for _ in range(size.scale)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(self.branch) for _ in range(size.scale))
        self.fuse_models = nn.ModuleList(_Fusion(self.branch) for _ in range(size.scale - 1)) if fuses else None
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x_BCFT: Tensor) -> Tensor:
        pieces = torch.split(_clipped(self.bn1(self.conv1(x_BCFT))), self.branch, dim=1)
        outputs: list[Tensor] = []
        for index, (piece, conv, norm) in enumerate(zip(pieces, self.convs, self.bns, strict=True)):
            if not index:
                joined = piece
            elif self.fuse_models is None:
                joined = outputs[-1] + piece
            else:
                joined = self.fuse_models[index - 1](outputs[-1], piece)
            outputs.append(_clipped(norm(conv(joined))))
        return _clipped(self.bn3(self.conv3(torch.cat(outputs, dim=1))) + self.shortcut(x_BCFT))


class _Fusion(nn.Module):
    """Attentional fusion of two maps of one shape: each is weighed by 0 to 2, and the two weights make 2."""

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 4
        self.local_att = nn.Sequential(
            nn.Conv2d(2 * channels, inner, 1),
            nn.BatchNorm2d(inner),
            nn.SiLU(),
            nn.Conv2d(inner, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x_BCFT: Tensor, y_BCFT: Tensor) -> Tensor:
        weight = torch.tanh(self.local_att(torch.cat([x_BCFT, y_BCFT], dim=1)))
        return x_BCFT * (1 + weight) + y_BCFT * (1 - weight)


def _clipped(x: Tensor) -> Tensor:
    # Where the others have a ReLU, ERes2Net's blocks also end at 20.
    return x.clamp(0, 20)


def _size_of(path: Path, state: Mapping[str, Tensor]) -> ERes2NetSize:
    try:
        width = state["conv1.weight"].shape[0]
        is_huge = "layer1.0.convs.2.weight" in state
        return ERes2NetSize(
            width=width,
            embedding=state["seg_1.weight"].shape[0],
            expansion=4 if is_huge else 2,
            scale=3 if is_huge else 2,
            base_width=24 if is_huge else 32,
            two_layers="seg_2.weight" in state,
        )
    except KeyError as error:
        key = error.args[0]
        raise UserError(
            f"--sim {path}: not the weights of ERes2Net: {key} is missing; name the weights of ERes2Net"
        ) from None
