"""Measured quality of a clip: DNSMOS, noise, clipping, bandwidth, loudness, DC offset."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from annotation.audio.events import speech_to_background_db
from voxmill.core.audio import resample
from voxmill.core.config import Config
from voxmill.core.machine import malloc
from voxmill.data.records import Quality

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

RATE = 16000
HALF_MINUTE = 30
_LIMITED = 0.01
"""Share of 10 ms frames that a limiter may turn down, three at least: clicks, not a passage."""


class QualityConfig(Config):
    """What clips are brought to. `loudness_lufs` per ITU-R BS.1770, no peak comes out over `peak_dbfs`."""

    loudness_lufs: float = -23.0
    """Loudness that every clip is brought to, in LUFS (ITU-R BS.1770)."""
    peak_dbfs: float = -1.0
    """Highest peak after the gain, in dBFS; clicks over it are turned down, with more peaks a clip gets less gain."""
    dnsmos_hops: int = 3
    """Evenly spaced places for each half minute at which DNSMOS is measured in a longer clip; their mean is kept."""


class Dnsmos:
    """DNSMOS P.835 and P.808 (Reddy et al. 2022) with the models that the `speechmos` package carries.

    Windows of 9.01 s; a shorter clip is repeated to that length, as the authors do, a longer one is measured at
    `max_hops` evenly spaced places for each half minute.
    """

    length = int(9.01 * RATE)

    def __init__(self, max_hops: int = 3, threads: int = 1):
        self._p835, self._p808 = _sessions(threads)
        self.max_hops = max_hops

    def __call__(self, audio: np.ndarray) -> tuple[float, float, float, float]:
        """(signal, background, overall, P.808) on the 1..5 scale for float32 [samples] at 16 kHz."""
        if len(audio) < self.length:
            audio = np.tile(audio, -(-self.length // max(len(audio), 1)))[: self.length]
        last = len(audio) - self.length
        num = min(last // RATE + 1, self.max_hops * max(-(-len(audio) // (HALF_MINUTE * RATE)), 1))
        scores = []
        for start in np.linspace(0, last, num).astype(int):
            window = np.clip(audio[start : start + self.length], -1, 1).astype(np.float32)
            raw = self._p835.run(None, {"input_1": window[None]})[0][0]
            p808 = float(self._p808.run(None, {"input_1": _log_mel(window[:-160])[None]})[0][0][0])
            scores.append((*_calibrate(*(float(v) for v in raw)), p808))
        sig, bak, ovr, p808 = np.mean(scores, axis=0)
        return float(sig), float(bak), float(ovr), float(p808)


@functools.cache
def _sessions(threads: int) -> tuple["InferenceSession", "InferenceSession"]:
    """The networks of P.835 and P.808, once a process: the first takes up to a quarter of a GB as it runs."""
    import importlib.util

    import onnxruntime

    spec = importlib.util.find_spec("speechmos")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # An arena keeps what it has to itself. Where malloc keeps what is freed for all models, none is as fast.
    options.enable_cpu_mem_arena = not malloc.is_kept()
    p835, p808 = (
        onnxruntime.InferenceSession(str(folder / name), options) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
    )
    return p835, p808


def _calibrate(sig: float, bak: float, ovr: float) -> tuple[float, float, float]:
    """The authors' polynomial from network output to MOS (non-personalised)."""
    return (
        float(np.polyval([-0.08397278, 1.22083953, 0.0052439], sig)),
        float(np.polyval([-0.13166888, 1.60915514, -0.39604546], bak)),
        float(np.polyval([-0.06766283, 1.11546468, 0.04602535], ovr)),
    )


def _log_mel(audio: np.ndarray) -> np.ndarray:
    import librosa

    mel = librosa.feature.melspectrogram(y=audio, sr=RATE, n_fft=321, hop_length=160, n_mels=120)
    mel_TF: np.ndarray = ((librosa.power_to_db(mel, ref=np.max) + 40) / 40).T.astype(np.float32)
    return mel_TF


def bandwidth(audio: np.ndarray, rate: int) -> float:
    """Highest frequency, Hz, that the recording really holds.

    The long-term spectrum over the loud frames: the highest frequency whose level is within 60 dB of the strongest
    band's and clear of the top of the spectrum's own floor. Upsampled 8 kHz speech shows about 4000, whatever its
    file's rate.
    """
    import librosa

    n_fft = 2048 if rate >= 16000 else 1024
    if len(audio) < n_fft:
        audio = np.pad(audio, (0, n_fft - len(audio)))
    power = np.square(np.abs(librosa.stft(audio, n_fft=n_fft, hop_length=n_fft // 2)))
    frame_energy = power.sum(axis=0)
    loud = power[:, frame_energy >= np.quantile(frame_energy, 0.7)]
    spectrum = np.convolve(loud.mean(axis=1), np.ones(5) / 5, mode="same")
    level = 10 * np.log10(spectrum + 1e-20)
    present = np.flatnonzero(level > level.max() - 60.0)
    return float((present[-1] if len(present) else 0) * rate / n_fft)


def clipped_share(audio: np.ndarray) -> float:
    """Share of samples in runs of 3 or more at the clip's own peak, 0..1."""
    peak = float(np.max(np.abs(audio), initial=0.0))
    if peak < 0.05:
        return 0.0
    at_peak = np.abs(audio) >= peak * 0.9995
    run = at_peak[:-2] & at_peak[1:-1] & at_peak[2:]
    return float(3 * run.sum() / len(audio)) if run.any() else 0.0


def loudness_gain(audio: np.ndarray, rate: int, config: QualityConfig) -> tuple[float, float]:
    """(measured loudness in LUFS, gain in dB towards the target that keeps the peak under `peak_dbfs`)."""
    loudness = _loudness(audio, rate)
    if not np.isfinite(loudness):
        return -120.0, 0.0
    peak_db = 20 * np.log10(float(np.max(np.abs(audio))) + 1e-12)
    return loudness, float(min(config.loudness_lufs - loudness, config.peak_dbfs - peak_db))


def limited_gain(audio: np.ndarray, rate: int, config: QualityConfig) -> tuple[float, float]:
    """(measured loudness in LUFS, gain in dB towards the target) of a clip that `at_loudness` then limits.

    Clicks and single bursts do not hold the gain down: of its 10 ms frames, `_LIMITED` may pass `peak_dbfs`.
    """
    loudness, gain = loudness_gain(audio, rate, config)
    if loudness + gain > config.loudness_lufs - 0.01 or not np.any(audio):
        return loudness, gain
    frame = max(rate // 100, 1)
    peaks = np.sort(np.abs(np.pad(audio, (0, -len(audio) % frame))).reshape(-1, frame).max(axis=1))
    allowed = min(max(round(_LIMITED * len(peaks)), 3), len(peaks) - 1)
    most = config.peak_dbfs - 20 * float(np.log10(peaks[-1 - allowed] + 1e-12))
    if most <= gain:
        return loudness, gain
    # What is limited counted towards the loudness, too.
    gain = min(config.loudness_lufs - loudness, most)
    for _ in range(2):
        reached = _loudness(at_loudness(audio, rate, gain, config), rate)
        gain = float(min(gain + config.loudness_lufs - reached, most)) if np.isfinite(reached) else gain
    return loudness, gain


def at_loudness(audio: np.ndarray, rate: int, gain_db: float, config: QualityConfig) -> np.ndarray:
    """Samples [T] with their gain; moments over `peak_dbfs` are turned down, 5 ms before to 5 ms after them."""
    from scipy.ndimage import minimum_filter1d, uniform_filter1d

    samples: np.ndarray = audio * np.float32(10 ** (gain_db / 20))
    ceiling = 10 ** (config.peak_dbfs / 20)
    sizes = np.abs(samples)
    if float(sizes.max(initial=0.0)) <= ceiling * 1.001:
        return samples
    reach = max(rate // 200, 1)
    wanted = np.minimum(1.0, ceiling / np.maximum(sizes, ceiling))
    # The least within reach, then means that reach as far together: never above what is wanted.
    smooth = minimum_filter1d(wanted, 2 * reach + 1, mode="nearest")
    for _ in range(2):
        smooth = uniform_filter1d(smooth, reach // 2 * 2 + 1, mode="nearest")
    limited: np.ndarray = samples * smooth.astype(np.float32)
    return limited


def _loudness(audio: np.ndarray, rate: int) -> float:
    import pyloudnorm

    block = 0.4
    if len(audio) < block * rate * 1.05:
        audio = np.tile(audio, int(np.ceil(block * rate * 1.05 / max(len(audio), 1))))
    return float(pyloudnorm.Meter(rate, block_size=block).integrated_loudness(audio.astype(np.float64)))


def signal_to_noise_db(audio: np.ndarray) -> float:
    """Power of the louder frames of a clip, float32 [samples] at 16 kHz, over that of its quiet ones, in dB."""
    frames = len(audio) // 160
    power = np.square(audio[: frames * 160].reshape(frames, 160)).mean(axis=1)
    spoken = power > np.quantile(power, 0.4) if frames else np.zeros(0, dtype=bool)
    return speech_to_background_db(audio, spoken)


class QualityMeter:
    """All quality measures of a clip."""

    def __init__(self, config: QualityConfig, threads: int = 1):
        # A library that is missing must stop the job here, not end recordings one by one.
        import librosa  # noqa: F401
        import pyloudnorm  # noqa: F401

        self.config = config
        self.dnsmos = Dnsmos(config.dnsmos_hops, threads)

    def __call__(
        self, audio: np.ndarray, rate: int, dc_offset: float, parts: Sequence[tuple[Quality, int]] = ()
    ) -> Quality:
        """Measures one clip.

        Args:
            audio: float32 [samples] at `rate`, DC already removed.
            dc_offset: what was removed, in full scale.
            parts: of a clip whose parts were measured, their quality and samples: DNSMOS, which takes most of the time,
                is their mean.
        """
        audio16 = resample(audio, rate, RATE)
        if parts:
            scores = [(one.dnsmos_sig, one.dnsmos_bak, one.dnsmos_ovr, one.dnsmos_p808) for one, _ in parts]
            lengths = [length for _, length in parts]
            sig, bak, ovr, p808 = (float(score) for score in np.average(scores, axis=0, weights=lengths))
        else:
            sig, bak, ovr, p808 = self.dnsmos(audio16)
        loudness, gain = limited_gain(audio, rate, self.config)
        return Quality(
            dnsmos_sig=sig,
            dnsmos_bak=bak,
            dnsmos_ovr=ovr,
            dnsmos_p808=p808,
            snr_db=signal_to_noise_db(audio16),
            clipping=clipped_share(audio),
            bandwidth_hz=bandwidth(audio, rate),
            loudness_lufs=loudness,
            gain_db=gain,
            dc_offset=dc_offset,
        )
