"""How well a codec gives audio back: the measures of report Table 10 and SI-SDR, each with a 95 % interval.

MelD is DAC's distance (`model/codec/mel_distance.py`): once at the codec's rate and once with both sides at 16 kHz. A source of a lower
rate is judged up to its own Nyquist frequency: nobody knows what would lie above. STOI, PESQ (wide band) and SI-SDR are
taken at 16 kHz. A measure that cannot be taken of a clip, such as PESQ where it finds no utterance, is NaN and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.codec.audio_vae import AudioVAE
from model.codec.mel_distance import MelDistance, band_limit

SPEECH_RATE = 16_000
MEASURES = ("mel_full", "mel_16k", "stoi_16k", "pesq_16k", "si_sdr_16k")
HIGHER_IS_BETTER = {"mel_full": False, "mel_16k": False, "stoi_16k": True, "pesq_16k": True, "si_sdr_16k": True}

Codec = Callable[[np.ndarray, int], tuple[np.ndarray, int]]
"""Mono float32 [T] at a rate in hertz, to what it becomes and its rate."""


@dataclass(frozen=True)
class Interval:
    """A mean over `count` clips and its 95 % bootstrap interval; `missing` clips had no value."""

    mean: float
    low: float
    high: float
    count: int
    missing: int


class Judge:
    """Scores pairs of audio.

    Args:
        rate_out: at which the full-band MelD is taken, hertz.
    """

    def __init__(self, rate_out: int = 48_000) -> None:
        self.rate_out = rate_out
        self._full, self._speech = MelDistance(rate_out), MelDistance(SPEECH_RATE)

    @torch.no_grad()
    def score(
        self, recorded: np.ndarray, rate: int, made: np.ndarray, made_rate: int, *, with_pesq: bool = True
    ) -> dict[str, float]:
        """Every measure of one clip, by name. The longer side is cut to the shorter.

        Args:
            recorded, made: mono float32 [T] at `rate` and `made_rate` hertz.
        """
        nyquist_1 = torch.tensor([min(rate, self.rate_out) / 2])
        pair_2T = torch.from_numpy(_together(recorded, rate, made, made_rate, self.rate_out))
        limited_2T = band_limit(pair_2T, nyquist_1.expand(2), self.rate_out)
        speech = _together(recorded, rate, made, made_rate, SPEECH_RATE)
        speech_2T = torch.from_numpy(speech)
        speech_nyquist_1 = nyquist_1.clamp(max=SPEECH_RATE / 2)
        return {
            "mel_full": float(self._full(limited_2T[:1], limited_2T[1:], nyquist_1)),
            "mel_16k": float(self._speech(speech_2T[:1], speech_2T[1:], speech_nyquist_1)),
            "stoi_16k": _stoi(*speech),
            "pesq_16k": _pesq(*speech) if with_pesq else float("nan"),
            "si_sdr_16k": si_sdr(*speech),
        }


def si_sdr(recorded: np.ndarray, made: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (arXiv 1811.02508), both sides without their means."""
    recorded, made = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (recorded, made))
    target = recorded * (made @ recorded) / max(recorded @ recorded, 1e-20)
    rest = made - target
    return float(10 * np.log10(max(target @ target, 1e-20) / max(rest @ rest, 1e-20)))


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Mean and 95 % interval over clips: percentile bootstrap, 5,000 resamples. Fewer than two values have no interval."""
    from scipy.stats import bootstrap

    known = np.array([value for value in values if np.isfinite(value)])
    missing = len(values) - len(known)
    mean = float(known.mean()) if len(known) else float("nan")
    if len(known) < 2:
        return Interval(mean, float("nan"), float("nan"), len(known), missing)
    found = bootstrap(
        (known,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(known), missing)


def vae_codec(vae: AudioVAE) -> Codec:
    """A frozen AudioVAE: hears its own rate, is told the source's rate."""

    @torch.no_grad()
    def give_back(audio: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        heard_BT = torch.from_numpy(resample(audio, rate, vae.config.sample_rate))[None].to(vae.device)
        conditioned = vae.config.sr_bin_boundaries is not None
        target = min(rate, vae.config.out_sample_rate) if conditioned else None
        made_BT = vae.decode(vae.encode(heard_BT), sample_rate=target)
        length = round(len(audio) * vae.config.out_sample_rate / rate)
        return made_BT[0, :length].cpu().numpy(), vae.config.out_sample_rate

    return give_back


def mel_codec(*, bands: int = 64, pool: int = 4, iterations: int = 32) -> Codec:
    """The naive baseline: mel magnitudes at 16 kHz, inverted by non-negative least squares and Griffin-Lim.

    Args:
        pool: frames of 10 ms whose mean is kept; 4 gives 25 x `bands` numbers a second, as AudioVAE has.
    """
    import librosa

    size, hop = 1024, SPEECH_RATE // 100

    def give_back(audio: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        heard = resample(audio, rate, SPEECH_RATE)
        mel = librosa.feature.melspectrogram(
            y=heard, sr=SPEECH_RATE, n_fft=size, hop_length=hop, n_mels=bands, power=1.0
        )
        frames = mel.shape[1]
        pooled = np.pad(mel, ((0, 0), (0, -frames % pool)), mode="edge").reshape(bands, -1, pool).mean(axis=2)
        # A line from one mean to the next, each in the middle of its frames, is kinder than steps.
        centres = np.arange(pooled.shape[1]) * pool + (pool - 1) / 2
        smooth = np.stack([np.interp(np.arange(frames), centres, row) for row in pooled]).astype(np.float32)
        magnitudes = librosa.feature.inverse.mel_to_stft(smooth, sr=SPEECH_RATE, n_fft=size, power=1.0)
        made = librosa.griffinlim(
            magnitudes, n_iter=iterations, hop_length=hop, n_fft=size, length=len(heard), random_state=0
        )
        return made.astype(np.float32), SPEECH_RATE

    return give_back


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Mono float32 audio at another rate."""
    import soxr

    return audio if rate == target else soxr.resample(audio, rate, target)


def _together(recorded: np.ndarray, rate: int, made: np.ndarray, made_rate: int, target: int) -> np.ndarray:
    pair = [resample(recorded, rate, target), resample(made, made_rate, target)]
    length = min(len(audio) for audio in pair)
    return np.stack([audio[:length] for audio in pair]).astype(np.float32)


def _stoi(recorded: np.ndarray, made: np.ndarray) -> float:
    import warnings

    import pystoi

    if not recorded.any():
        return float("nan")
    with warnings.catch_warnings():
        # Too little speech for a frame of 0.4 s: pystoi warns and gives 1e-5, which is no measure.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(recorded, made, SPEECH_RATE))
        except RuntimeWarning:
            return float("nan")


def _pesq(recorded: np.ndarray, made: np.ndarray) -> float:
    import pesq

    if not recorded.any() or not made.any():  # it divides by the loudest sample
        return float("nan")
    try:
        return float(pesq.pesq(SPEECH_RATE, recorded, made, "wb"))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return float("nan")
