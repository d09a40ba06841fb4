"""Delivery, voice and channel of one clip beyond pitch and pace: loudness, ending, creak, band limits, reverberation.

All from 16 kHz audio and the frames that `annotation/voice/prosody.py` has anyhow; `None` where there is too little to
measure on. Which values are worth saying: `annotation/descriptions/voice_facts.py`, whose thresholds come from
benchmarks/voice_facts.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from voxmill.core.audio import runs

RATE = 16000
HOP = 320
"""Samples between frames of level and pitch, 20 ms."""
_STEP, _WINDOW, _BLOCK = 160, 400, 2000
"""Of the spectra behind bands and decays: 10 ms and 25 ms, 20 s at once."""
_OCTAVES = ("250", "500", "1000", "2000")
_BANDS = {
    "all": (0, 201),
    "low": (2, 7),
    "line": (8, 86),
    "high": (100, 188),
    "deep": (2, 25),
    "bright": (25, 125),
    **dict(zip(_OCTAVES, ((6, 12), (12, 25), (25, 50), (50, 100)), strict=True)),
}
"""Columns of 40 Hz."""
_SILENCE = 1e-7
_SYLLABLE = 7
"""Frames on both sides in which a frame's loudest is looked for: 0.3 s, one stressed syllable."""
_DECAY = 6
"""Steps over which a decay is measured, 60 ms."""
_PEAK_DB = 6.0
"""Rise and fall, in dB, of the power around a glottal pulse that stands by itself (Ishi et al. 2008: 7 dB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The measures of this module, as `voxmill.data.records.Prosody` has them."""

    loudness_std_db: float | None
    f0_end_semitones: float | None
    creak_share: float | None
    tilt_db: float | None
    low_band_db: float | None
    high_band_db: float | None
    decay_db_per_s: float | None


def measure(audio: np.ndarray, level_db: np.ndarray, active: np.ndarray, f0: np.ndarray) -> Delivery:
    """All of them.

    Args:
        audio: float32 [samples] at 16 kHz.
        level_db, active, f0: a frame of 20 ms: level, whether it is no silence, pitch in Hz or NaN.
    """
    bands = band_powers(audio)
    low, high = band_levels(bands) or (None, None)
    return Delivery(
        loudness_std_db=loudness_spread(level_db, np.isfinite(f0)),
        f0_end_semitones=ending(f0),
        creak_share=creak_share(audio, active),
        tilt_db=tilt(bands),
        low_band_db=low,
        high_band_db=high,
        decay_db_per_s=decay_rate(bands),
    )


def loudness_spread(level_db: np.ndarray, voiced: np.ndarray) -> float | None:
    """Standard deviation of the loudest level of the 0.3 s around each voiced frame, dB.

    The loudest of each syllable rather than every frame: vowels and consonants differ in everybody's speech.

    Args:
        level_db: a 20 ms frame; voiced: bool, likewise.
    """
    from scipy.ndimage import maximum_filter1d

    if voiced.sum() < 25:
        return None
    return float(maximum_filter1d(level_db, 2 * _SYLLABLE + 1)[voiced].std())


def ending(f0: np.ndarray) -> float | None:
    """By how many semitones the pitch moves over the last 0.4 s of voice; positive rises. None: too little voice.

    The slope is Theil and Sen's, the median of all pairs: single octave errors of the last, weak periods do not count.

    Args:
        f0: Hz a 20 ms frame, NaN where unvoiced.
    """
    places = np.flatnonzero(np.isfinite(f0))
    if not len(places):
        return None
    places = places[places > places[-1] - 20]
    if len(places) < 9:
        return None
    semitones = 12 * np.log2(f0[places])
    one, two = np.triu_indices(len(places), k=3)
    slopes = (semitones[two] - semitones[one]) / (places[two] - places[one])
    return float(np.median(slopes) * (places[-1] - places[0]))


def creak_share(audio: np.ndarray, active: np.ndarray) -> float | None:
    """Share of the active time that is creaky, 0..1: pulses 14 to 50 ms apart with silence between.

    After Ishi, Sakakibara, Ishiguro and Hagita (2008): peaks of the power of 4 ms that rise and fall by some dB, three
    or more in a row, of one shape. None: less than half a second is active.

    Args:
        active: bool a 20 ms frame, what is not silence.
    """
    from scipy.signal import butter, sosfiltfilt

    wave = sosfiltfilt(butter(2, [100, 1500], "bandpass", fs=RATE, output="sos"), audio.astype(np.float64))
    hop = 32
    num = len(wave) // hop - 1
    if num < 60 or active.sum() * HOP < RATE // 2:
        return None
    sums = np.square(wave[: (num + 1) * hop]).reshape(num + 1, hop).sum(axis=1)
    power = 10 * np.log10((sums[:-1] + sums[1:]) / (2 * hop) + 1e-12)
    pulses = _pulses(power)
    pulses = pulses[power[pulses] > np.quantile(power, 0.95) - 25]
    gaps = np.diff(pulses)
    apart = (gaps >= 7) & (gaps <= 25)
    apart &= _alike(wave, pulses * hop + hop)
    creaky = np.zeros(num, dtype=bool)
    for first, last in runs(apart):
        if last - first >= 2:
            creaky[pulses[first] : pulses[last]] = True
    spoken = np.repeat(active, HOP // hop)[:num]
    return float(creaky[: len(spoken)][spoken].sum() / spoken.sum())


def _pulses(power: np.ndarray) -> np.ndarray:
    """Steps of 2 ms at which the power is highest within 6 ms and stands out of both sides."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    near = 3
    highest = power >= maximum_filter1d(power, 2 * near + 1)
    low = minimum_filter1d(power, near + 1)
    before, after = np.roll(low, (near + 1) // 2), np.roll(low, -(near + 1) // 2)
    stands = (power - before > _PEAK_DB) & (power - after > _PEAK_DB)
    found: np.ndarray = np.flatnonzero(highest & stands)
    return found


def _alike(wave: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Whether neighbouring pulses have one shape: their correlation within 2 ms, bool [N-1]."""
    half, shift = 64, 32
    padded = np.pad(wave, half + shift)
    alike = np.zeros(max(len(centres) - 1, 0), dtype=bool)
    for number in range(len(alike)):
        one = padded[centres[number] + shift : centres[number] + shift + 2 * half]
        two = padded[centres[number + 1] : centres[number + 1] + 2 * (half + shift)]
        cross = np.correlate(two, one, mode="valid")
        sums = np.concatenate([[0.0], np.cumsum(two * two)])
        energy = sums[2 * half :] - sums[: -2 * half]
        alike[number] = (cross / np.sqrt(energy * (one @ one) + 1e-12)).max() > 0.5
    return alike


def band_powers(audio: np.ndarray) -> dict[str, np.ndarray]:
    """Power of each band of `_BANDS` [T] in 25 ms every 10 ms, in blocks, so that long clips take little memory."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, (0, _WINDOW)), _WINDOW)[::_STEP]
    window = np.hanning(_WINDOW).astype(np.float32)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _BANDS}
    for first in range(0, len(frames), _BLOCK):
        power_TF = np.square(np.abs(np.fft.rfft(frames[first : first + _BLOCK] * window, axis=1)))
        for name, (low, high) in _BANDS.items():
            parts[name].append(power_TF[:, low:high].sum(axis=1))
    return {name: np.concatenate(values) for name, values in parts.items()}


def tilt(bands: Mapping[str, np.ndarray]) -> float | None:
    """Level of 50-1000 Hz over 1000-5000 Hz in loud frames, pitched or not, dB. None: less than 1 s of them.

    A whisper has no pitch, as a creak or a hum under noise may have none, but little below 1 kHz.
    """
    loud = bands["all"] > max(float(np.quantile(bands["all"], 0.95)) * 1e-2, _SILENCE)
    if loud.sum() * _STEP < RATE:
        return None
    return float(np.mean(10 * np.log10((bands["deep"][loud] + 1e-12) / (bands["bright"][loud] + 1e-12))))


def band_levels(bands: Mapping[str, np.ndarray]) -> tuple[float, float] | None:
    """(level of 80-240 Hz, level of 4-7.5 kHz), dB relative to 300-3400 Hz, a hertz, in loud frames; None: silence.

    A telephone line passes 300 to 3400 Hz.
    """
    loud = bands["all"] > max(float(np.quantile(bands["all"], 0.95)) * 1e-3, _SILENCE)
    if not loud.any():
        return None
    middle, low, high = (
        float(bands[name][loud].mean()) / (_BANDS[name][1] - _BANDS[name][0]) for name in ("line", "low", "high")
    )
    return float(10 * np.log10(low / middle + 1e-12)), float(10 * np.log10(high / middle + 1e-12))


def decay_rate(bands: Mapping[str, np.ndarray]) -> float | None:
    """How fast sounds die away where they do so fastest, dB/s: 60 over the reverberation time is its limit in a room.

    The tenth percentile of the falls over 60 ms in octaves from 250 Hz to 4 kHz, begun at most 20 dB below the octave's
    loud frames and, so that noise is no end of it, 16 dB above its quiet ones. None: too few such frames.
    """
    falls = []
    for name in _OCTAVES:
        level = 10 * np.log10(bands[name] + 1e-12)
        if len(level) <= _DECAY:
            return None
        loud, quiet = np.quantile(level, [0.95, 0.05])
        start, fall = level[:-_DECAY], level[:-_DECAY] - level[_DECAY:]
        usable = (start > loud - 20) & (start > quiet + 16) & (fall > 3)
        falls.append(fall[usable])
    joined = np.concatenate(falls)
    if len(joined) < 40:
        return None
    return float(np.quantile(joined, 0.9) * 100 / _DECAY)


def peak_prominence(log_power_NF: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """Cepstral peak prominence of voiced frames, dB [N] (Hillenbrand et al. 1994): the cepstrum's peak above its line.

    Args:
        log_power_NF: dB, the half spectrum of 2048 samples at 16 kHz [N,1025].
        f0: Hz [N]; the peak is looked for within a quarter of its period.
    """
    cepstrum = 20 * np.log10(np.abs(np.fft.irfft(log_power_NF, axis=1)[:, : RATE // 60]) + 1e-9)
    lags = np.arange(cepstrum.shape[1])
    fitted = lags >= RATE // 1000
    x = lags[fitted] - lags[fitted].mean()
    slope = cepstrum[:, fitted] @ x / (x @ x)
    line = cepstrum[:, fitted].mean(axis=1, keepdims=True) + slope[:, None] * (lags - lags[fitted].mean())
    period = (RATE / f0)[:, None]
    near = np.abs(lags - period) <= 0.25 * period
    peaks: np.ndarray = np.where(near, cepstrum - line, -np.inf).max(axis=1)
    return peaks
