"""DeepFilterNet3 (Schröter et al. 2023, arXiv:2305.08227): speech without noise at 48 kHz, by its exported networks.

Three ONNX networks see the recording's spectrum: one makes features of it, one a gain for each of 32 bands, one a
filter over five frames for each bin below 4.8 kHz. Spectra, bands, running means and the filter are here, in NumPy, as
libDF has them. What it leaves out where noise is low or speech far below it, to work in real time, is always done.
"""

import tarfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.core.audio import resample
from voxmill.core.errors import UserError, first_line
from voxmill.core.machine import malloc

RATE = 48000
FFT, HOP = 960, 480
NUM_BINS = FFT // 2 + 1
BANDS, FILTERED = 32, 96
ORDER, LOOKAHEAD = 5, 2
SMOOTHING = 0.99
"""Share of a running mean that stays from frame to frame: a time constant of a second."""
CHUNK, BEFORE, AFTER = 3000, 300, 10
"""Frames that the networks see at once, and before and after them without effect: their memory is bounded so."""
_MEMBERS = ("enc", "erb_dec", "df_dec")


class DeepFilterNet:
    """Speech without noise.

    Args:
        archive: `DeepFilterNet3_onnx.tar.gz` as it was released.

    Raises:
        UserError: it is not there, or does not hold the three networks.
    """

    def __init__(self, archive: Path, threads: int = 1):
        self._encode, self._gains, self._filters = _sessions(archive, threads)

    def __call__(self, recordings: Iterable[tuple[np.ndarray, int]]) -> Iterator[np.ndarray]:
        """The voice, float32 [samples], of each recording (mono float32 [samples], its rate), in order."""
        for audio, rate in recordings:
            voice = resample(self.enhanced(resample(audio, rate, RATE)), RATE, rate)[: len(audio)]
            yield np.pad(voice, (0, len(audio) - len(voice))).astype(np.float32, copy=False)

    def enhanced(self, audio: np.ndarray) -> np.ndarray:
        """The voice of float32 [samples] at 48 kHz, as long as that."""
        if not len(audio):
            return audio
        spectrum = _spectrum(audio)
        return _waveform(np.concatenate([*self._chunks(spectrum)]), len(audio))

    def _chunks(self, spectrum_TF: np.ndarray) -> Iterator[np.ndarray]:
        bands_TB, bins_TF = _band_features(spectrum_TF), _bin_features(spectrum_TF)
        for start in range(0, len(spectrum_TF), CHUNK):
            first, last = max(start - BEFORE, 0), start + CHUNK + AFTER
            # Features run ahead of the frames that they are for.
            ahead = slice(first + LOOKAHEAD, last + LOOKAHEAD)
            num = len(spectrum_TF[first:last])
            gains, filters = self._networks(_filled(bands_TB[ahead], num), _filled(bins_TF[ahead], num))
            enhanced = _enhanced(spectrum_TF, first, gains, filters)
            yield enhanced[start - first :][:CHUNK]

    def _networks(self, bands_TB: np.ndarray, bins_TF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gains [T,32] and filters, complex [T,5,96], from features."""
        spec = np.stack([bins_TF.real, bins_TF.imag])[None]
        e0, e1, e2, e3, emb, c0, _ = self._encode.run(None, {"feat_erb": bands_TB[None, None], "feat_spec": spec})
        (gains,) = self._gains.run(["m"], {"emb": emb, "e3": e3, "e2": e2, "e1": e1, "e0": e0})
        (coefs,) = self._filters.run(["coefs"], {"emb": emb, "c0": c0})
        coefs_TFO = coefs.reshape(-1, FILTERED, ORDER, 2)
        return gains[0, 0], (coefs_TFO[..., 0] + 1j * coefs_TFO[..., 1]).transpose(0, 2, 1)


def _sessions(archive: Path, threads: int) -> tuple[Any, Any, Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = not malloc.is_kept()
    try:
        with tarfile.open(archive) as tar:
            members = {Path(member.name).stem: member for member in tar.getmembers() if member.name.endswith(".onnx")}
            networks = [tar.extractfile(members[name]) for name in _MEMBERS]
            encode, gains, filters = (
                onnxruntime.InferenceSession((network or BytesIO()).read(), options) for network in networks
            )
    except (OSError, tarfile.TarError, KeyError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"{archive}: not the networks of DeepFilterNet3 ({reason}); name its DeepFilterNet3_onnx.tar.gz"
        ) from error
    return encode, gains, filters


def _window() -> np.ndarray:
    """Vorbis's window [960], whose squares add up to one over frames that overlap by half."""
    inner = np.sin(np.pi * (np.arange(FFT) + 0.5) / FFT)
    window: np.ndarray = np.sin(np.pi / 2 * inner**2).astype(np.float32)
    return window


def _spectrum(audio: np.ndarray) -> np.ndarray:
    """Complex spectrum [T,481], scaled as libDF scales it; the first frame ends with the first hop."""
    num_frames = -(-len(audio) // HOP) + 1
    padded = np.pad(audio.astype(np.float32, copy=False), (HOP, num_frames * HOP - len(audio)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP][:num_frames]
    spectrum: np.ndarray = (np.fft.rfft(frames * _window()) * (2 * HOP / FFT**2)).astype(np.complex64)
    return spectrum


def _waveform(spectrum_TF: np.ndarray, num_samples: int) -> np.ndarray:
    frames = np.fft.irfft(spectrum_TF, FFT).astype(np.float32) * (FFT**2 / (2 * HOP)) * _window()
    audio = np.zeros((len(frames) + 1) * HOP, dtype=np.float32)
    audio[:-HOP] += frames[:, :HOP].reshape(-1)
    audio[HOP:] += frames[:, HOP:].reshape(-1)
    return audio[HOP:][:num_samples]


def band_widths() -> list[int]:
    """Bins of each of the 32 bands, equally wide in ERB-rate (Glasberg and Moore) but at least two."""

    def rate(hertz: float) -> float:
        return float(9.265 * np.log1p(hertz / (24.7 * 9.265)))

    low, high = rate(0), rate(RATE / 2)
    widths, before, surplus = [], 0, 0
    for band in range(1, BANDS + 1):
        edge = 24.7 * 9.265 * (np.exp((low + band * (high - low) / BANDS) / 9.265) - 1)
        end = round(float(edge) / (RATE / FFT))
        width = end - before - surplus
        surplus = max(2 - width, 0)
        widths.append(max(width, 2))
        before = end
    widths[-1] += 1
    widths[-1] -= max(sum(widths) - NUM_BINS, 0)
    return widths


def _band_features(spectrum_TF: np.ndarray) -> np.ndarray:
    """Levels of the bands in dB, less their running mean, a fortieth of that; float32 [T,32]."""
    widths = np.array(band_widths())
    power = np.square(np.abs(spectrum_TF), dtype=np.float32)
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    levels = 10 * np.log10(np.add.reduceat(power, starts, axis=1) / widths + 1e-10)
    means = _running_means(levels, np.linspace(-60, -90, BANDS))
    features: np.ndarray = (levels - means) / 40
    return features.astype(np.float32)


def _bin_features(spectrum_TF: np.ndarray) -> np.ndarray:
    """The lower bins over the root of the running mean of their size, complex64 [T,96]."""
    bins = spectrum_TF[:, :FILTERED]
    means = _running_means(np.abs(bins), np.linspace(0.001, 0.0001, FILTERED))
    features: np.ndarray = bins / np.sqrt(means)
    return features.astype(np.complex64)


def _running_means(values_TF: np.ndarray, first_F: np.ndarray) -> np.ndarray:
    from scipy.signal import lfilter

    share = 1 - SMOOTHING
    means: np.ndarray
    means, _ = lfilter([share], [1, -SMOOTHING], values_TF, axis=0, zi=SMOOTHING * first_F[None])
    return means


def _filled(features: np.ndarray, num_frames: int) -> np.ndarray:
    """With zeros in place of frames behind the recording's end."""
    filled: np.ndarray = np.pad(features, ((0, num_frames - len(features)), (0, 0)))
    return filled


def _enhanced(spectrum_TF: np.ndarray, first: int, gains_TB: np.ndarray, filters_TOF: np.ndarray) -> np.ndarray:
    """Frames from `first` on, as many as there are gains: bands with their gains, below 4.8 kHz filtered instead."""
    num = len(gains_TB)
    enhanced: np.ndarray = spectrum_TF[first : first + num] * np.repeat(gains_TB, band_widths(), axis=1)
    before = ORDER - 1 - LOOKAHEAD
    padded = np.pad(spectrum_TF[:, :FILTERED], ((before, LOOKAHEAD), (0, 0)))[first : first + num + ORDER - 1]
    enhanced[:, :FILTERED] = sum(padded[tap : tap + num] * filters_TOF[:, tap] for tap in range(ORDER))
    return enhanced
