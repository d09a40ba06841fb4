"""A convolutional network that hears whether a voice is a woman's or a man's, from 0.68 s of 24 mel bands.

The network and its weights are those of inaSpeechSegmenter 0.6.8 (Doukhan et al., ICASSP 2018; MIT), which was trained
on French television; network and features are written here after their definitions. The weights are a Keras file in
HDF5: each tensor lies in one piece at a fixed place of a file that is known by its sha256, so they are read from there
and no reader of HDF5 is needed.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.core.audio import RATE_16K
from voxmill.core.errors import UserError

FILE = "keras_male_female_cnn.hdf5"
BYTES = 6_040_200
BANDS = 24
PATCH = 68
"""Frames of 10 ms that the network sees at once."""
STEP = 34
"""Frames from one patch to the next; the original has 2 and smooths the answers."""
_WINDOW, _HOP, _FFT = 400, 160, 512
_LOWEST, _HIGHEST = 100.0, 8000.0
_PREEMPHASIS = 0.97
_ACTIVE = 0.03
"""A frame is speech above this share of the (geometric) mean energy, as the original's detector begins."""
_MAX_LOGIT = 5.0
"""No patch counts for more than this, so that one which the network is quite sure of decides no clip."""

# Places in the file, in bytes, as h5py gives them: kernel, bias; then gamma, beta, mean and variance of what follows.
_CONVOLUTIONS = (
    ((3, 3, 1, 64), (24256, 28608, 28864, 29120, 29376, 29632)),
    ((3, 3, 64, 64), (35664, 29888, 30144, 30400, 186688, 186944)),
    ((3, 3, 64, 128), (193448, 187200, 187712, 188224, 491984, 492496)),
    ((3, 3, 128, 128), (497624, 493008, 493520, 1090608, 1091120, 1091632)),
    ((3, 3, 128, 256), (1097680, 2279376, 2280400, 2283472, 2284496, 2285520)),
)
_POOLS = {1: (1, 2), 3: (2, 2), 4: (28, 1)}
_DENSE = (
    ((256, 512), (2291904, 2818240, 2822336, 2824384, 2826432, 2828480)),
    ((512, 512), (2834352, 3884976, 3889072, 3891120, 3893168, 3895216)),
    ((512, 512), (3901744, 4952368, 4956464, 4958512, 4960560, 4962608)),
    ((512, 512), (4968480, 6019104, 6023200, 6025248, 6027296, 6029344)),
)
_LAST = ((512, 2), (6035832, 1092144))


class GenderCnn:
    """Probability of a female voice in a clip.

    Raises:
        UserError: the file is not there, or is another one.
    """

    def __init__(self, path: Path, device: str = "cpu"):
        self._device = device
        self._network = _network(path).to(device).eval()

    def __call__(self, clip: np.ndarray) -> float | None:
        """From the mean log odds of all patches with speech, 0..1; None where there is none.

        Args:
            clip: float32 [samples] at 16 kHz in -1..1.
        """
        mel_TM, energy_T = mel_bands(clip)
        patches_PTM = speech_patches(mel_TM, energy_T)
        if not len(patches_PTM):
            return None
        female_P = self.of_patches(patches_PTM).astype(np.float64).clip(1e-9, 1 - 1e-9)
        logits_P = np.log(female_P / (1 - female_P)).clip(-_MAX_LOGIT, _MAX_LOGIT)
        return float(1 / (1 + np.exp(-logits_P.mean())))

    def of_patches(self, patches_PTM: np.ndarray) -> np.ndarray:
        """Probability of a female voice in each patch, float32 [P], of normalised patches [P, 68, 24]."""
        import torch

        with torch.inference_mode():
            patches_P1TM = torch.from_numpy(np.ascontiguousarray(patches_PTM, np.float32))[:, None].to(self._device)
            female_P: np.ndarray = self._network(patches_P1TM).softmax(-1)[:, 0].float().cpu().numpy()
        return female_P


def mel_bands(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the power in 24 mel bands [T, 24] and of the energy [T], of frames of 25 ms every 10 ms.

    Args:
        clip: float [samples] at 16 kHz, one frame at least. Digital silence gives -inf.
    """
    frames = np.lib.stride_tricks.sliding_window_view(clip.astype(np.float64), _WINDOW)[::_HOP]
    # Within each frame, as a stream is processed: its first sample is its own predecessor.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = frames - _PREEMPHASIS * before
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), _FFT)) ** 2
    with np.errstate(divide="ignore"):
        return np.log(power @ _filters().T), np.log((frames**2).sum(axis=1))


def speech_patches(mel_TM: np.ndarray, energy_T: np.ndarray) -> np.ndarray:
    """Every patch of which half the frames are speech, each with a mean of 0 and a deviation of 1, [P, 68, 24].

    A shorter clip is filled up with its least value, as the original does.
    """
    if len(mel_TM) < PATCH:
        finite = mel_TM[np.isfinite(mel_TM)]
        least = float(finite.min()) if len(finite) else 0.0
        missing = PATCH - len(mel_TM)
        mel_TM = np.concatenate([mel_TM, np.full((missing, BANDS), least)])
        energy_T = np.concatenate([energy_T, np.full(missing, -np.inf)])
    known = energy_T[np.isfinite(energy_T)]
    if not len(known):
        return np.zeros((0, PATCH, BANDS))
    active_T = energy_T > known.mean() + np.log(_ACTIVE)
    starts = np.arange(0, len(mel_TM) - PATCH + 1, STEP)
    patches_PTM = np.stack([mel_TM[start : start + PATCH] for start in starts])
    wanted = min(PATCH // 2, int(active_T.sum()))
    speech = np.array([active_T[start : start + PATCH].sum() >= wanted for start in starts])
    patches_PTM = patches_PTM[speech & np.isfinite(patches_PTM).all(axis=(1, 2))]
    deviation = patches_PTM.std(axis=(1, 2), keepdims=True)
    patches_PTM = patches_PTM[deviation[:, 0, 0] > 0]
    mean, deviation = patches_PTM.mean(axis=(1, 2), keepdims=True), patches_PTM.std(axis=(1, 2), keepdims=True)
    normalised: np.ndarray = (patches_PTM - mean) / deviation
    return normalised


def _filters() -> np.ndarray:
    """Triangles of equal area [24, 257], evenly spaced in mel from 100 to 8000 Hz."""
    low_mel, high_mel = (2595 * np.log10(1 + hertz / 700) for hertz in (_LOWEST, _HIGHEST))
    mel = np.linspace(low_mel, high_mel, BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = np.arange(_FFT // 2 + 1) * RATE_16K / _FFT
    filters = np.zeros((BANDS, len(hertz)))
    for band, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        first, middle, last = (int(edge * _FFT / RATE_16K) + 1 for edge in (low, centre, high))
        height = 2 / (high - low)
        filters[band, first:middle] = height * (hertz[first:middle] - low) / (centre - low)
        # The original leaves out the last bin of every triangle.
        filters[band, middle : last - 1] = height * (high - hertz[middle : last - 1]) / (high - centre)
    return filters


def _network(path: Path) -> Any:
    """Logits (female, male) of patches [P, 1, 68, 24]."""
    from torch import nn

    content = path.read_bytes() if path.is_file() else b""
    if len(content) != BYTES or not content.startswith(b"\x89HDF\r\n\x1a\n"):
        raise UserError(f"gender: {path} is not the network of inaSpeechSegmenter 0.6.8; run: voxmill fetch")
    layers: list[nn.Module] = []
    for number, (kernel, places) in enumerate(_CONVOLUTIONS):
        convolution = nn.Conv2d(kernel[2], kernel[3], 3)
        _fill(convolution, content, kernel, places)
        layers += [convolution, _norm(nn.BatchNorm2d(kernel[3], eps=1e-3), content, places), nn.ReLU()]
        if number in _POOLS:
            layers.append(nn.MaxPool2d(_POOLS[number]))
    layers.append(nn.Flatten())
    for shape, places in _DENSE:
        dense = nn.Linear(*shape)
        _fill(dense, content, shape, places)
        layers += [dense, _norm(nn.BatchNorm1d(shape[1], eps=1e-3), content, places), nn.ReLU()]
    last = nn.Linear(*_LAST[0])
    _fill(last, content, *_LAST)
    return nn.Sequential(OrderedDict((str(i), layer) for i, layer in enumerate([*layers, last])))


def _fill(layer: Any, content: bytes, shape: tuple[int, ...], places: tuple[int, ...]) -> None:
    import torch

    kernel = _tensor(content, places[0], shape)
    # Keras has inputs before outputs, and rows and columns before both.
    order = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
    state = {
        "weight": torch.from_numpy(kernel.transpose(order).copy()),
        "bias": torch.from_numpy(_tensor(content, places[1], shape[-1:]).copy()),
    }
    layer.load_state_dict(state)


def _norm(layer: Any, content: bytes, places: tuple[int, ...]) -> Any:
    import torch

    names = ("weight", "bias", "running_mean", "running_var")
    state = {
        name: torch.from_numpy(_tensor(content, place, (layer.num_features,)).copy())
        for name, place in zip(names, places[2:], strict=True)
    }
    layer.load_state_dict(state | {"num_batches_tracked": torch.tensor(0)})
    return layer


def _tensor(content: bytes, place: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(content, "<f4", int(np.prod(shape)), place).reshape(shape)
