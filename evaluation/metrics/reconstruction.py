"""How well a codec reconstructs audio: the measures of report Table 10, and SI-SDR.

MelD is DAC's distance (`model/codec/mel_distance.py`), once at the codec's rate and once with both sides at 16 kHz. A
source of a lower rate is compared up to its own Nyquist frequency, since nothing is known of what lies above. STOI,
PESQ (wide band) and SI-SDR are computed at 16 kHz. A measure that is undefined for a clip, such as PESQ where it
detects no utterance, is NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from model.codec.audio_vae import AudioVAE
from model.codec.mel_distance import MelDistance, band_limit
from voxmill.core.audio import resample

SPEECH_RATE = 16_000
MEASURES = ("mel_full", "mel_16k", "stoi_16k", "pesq_16k", "si_sdr_16k")

Codec = Callable[[np.ndarray, int], tuple[np.ndarray, int]]
"""Encodes and decodes: mono float32 [T] and its rate in hertz, to the reconstruction and its rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecScores:
    """Measures of one clip, NaN where one is undefined.

    `mel_full`, `mel_16k`: distances, 0 and up, less is better. `stoi_16k`: 0 to 1. `pesq_16k`: -0.5 to 4.64.
    `si_sdr_16k`: dB.
    """

    mel_full: float
    mel_16k: float
    stoi_16k: float
    pesq_16k: float
    si_sdr_16k: float


class CodecScorer:
    """Compares reconstructions with their recordings.

    Args:
        rate_out: rate in hertz at which the full-band MelD is computed.
    """

    def __init__(self, rate_out: int = 48_000) -> None:
        self.rate_out = rate_out
        self._full, self._speech = MelDistance(rate_out), MelDistance(SPEECH_RATE)

    @torch.no_grad()
    def score(
        self, recorded: np.ndarray, rate: int, made: np.ndarray, made_rate: int, *, with_pesq: bool = True
    ) -> CodecScores:
        """Every measure of one clip. The longer side is cut to the length of the shorter.

        Args:
            recorded, made: mono float32 [T] at `rate` and `made_rate` hertz.
        """
        nyquist_1 = torch.tensor([min(rate, self.rate_out) / 2])
        pair_2T = torch.from_numpy(_together(recorded, rate, made, made_rate, self.rate_out))
        limited_2T = band_limit(pair_2T, nyquist_1.expand(2), self.rate_out)
        speech = _together(recorded, rate, made, made_rate, SPEECH_RATE)
        speech_2T = torch.from_numpy(speech)
        speech_nyquist_1 = nyquist_1.clamp(max=SPEECH_RATE / 2)
        return CodecScores(
            mel_full=float(self._full(limited_2T[:1], limited_2T[1:], nyquist_1)),
            mel_16k=float(self._speech(speech_2T[:1], speech_2T[1:], speech_nyquist_1)),
            stoi_16k=_stoi(*speech),
            pesq_16k=_pesq(*speech) if with_pesq else float("nan"),
            si_sdr_16k=si_sdr(*speech),
        )


def si_sdr(recorded: np.ndarray, made: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (arXiv 1811.02508), both sides without their means."""
    recorded, made = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (recorded, made))
    target = recorded * (made @ recorded) / max(recorded @ recorded, 1e-20)
    rest = made - target
    return float(10 * np.log10(max(target @ target, 1e-20) / max(rest @ rest, 1e-20)))


def vae_codec(vae: AudioVAE) -> Codec:
    """A frozen AudioVAE: input is resampled to its own rate, and the decoder is conditioned on the source's rate."""

    @torch.no_grad()
    def reconstruct(audio: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        input_BT = torch.from_numpy(resample(audio, rate, vae.config.sample_rate))[None].to(vae.device)
        conditioned = vae.config.sr_bin_boundaries is not None
        target = min(rate, vae.config.out_sample_rate) if conditioned else None
        made_BT = vae.decode(vae.encode(input_BT), sample_rate=target)
        length = round(len(audio) * vae.config.out_sample_rate / rate)
        return made_BT[0, :length].cpu().numpy(), vae.config.out_sample_rate

    return reconstruct


def mel_codec(*, bands: int = 64, pool: int = 4, iterations: int = 32) -> Codec:
    """The naive baseline: mel magnitudes at 16 kHz, inverted by non-negative least squares and Griffin-Lim.

    Args:
        pool: frames of 10 ms whose mean is kept; 4 gives 25 x `bands` numbers a second, as AudioVAE has.
    """
    import librosa

    size, hop = 1024, SPEECH_RATE // 100

    def reconstruct(audio: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        source = resample(audio, rate, SPEECH_RATE)
        mel = librosa.feature.melspectrogram(
            y=source, sr=SPEECH_RATE, n_fft=size, hop_length=hop, n_mels=bands, power=1.0
        )
        frames = mel.shape[1]
        pooled = np.pad(mel, ((0, 0), (0, -frames % pool)), mode="edge").reshape(bands, -1, pool).mean(axis=2)
        # A line from one mean to the next, each in the middle of its frames, is kinder than steps.
        centres = np.arange(pooled.shape[1]) * pool + (pool - 1) / 2
        smooth = np.stack([np.interp(np.arange(frames), centres, row) for row in pooled]).astype(np.float32)
        magnitudes = librosa.feature.inverse.mel_to_stft(smooth, sr=SPEECH_RATE, n_fft=size, power=1.0)
        made = librosa.griffinlim(
            magnitudes, n_iter=iterations, hop_length=hop, n_fft=size, length=len(source), random_state=0
        )
        return made.astype(np.float32), SPEECH_RATE

    return reconstruct


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
