"""Recordings changed so that what they are is known: another channel, excitation, pitch, loudness or emphasis.

Voices are taken apart by linear prediction: what is left of a frame is its excitation, and another excitation makes the
same words whispered, creaky, or of any pitch. All functions take and give mono float32 [samples] at 16 kHz.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.ndimage import maximum_filter1d
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from voxmill.core.audio import resample
from voxmill.data.records import Word

RATE = 16_000
_HOP, _FRAME, _ORDER = 160, 480, 18


def telephone(audio: np.ndarray) -> np.ndarray:
    """300-3400 Hz at 8 kHz in mu-law of 8 bits, as G.711 lines are."""
    narrow = sosfilt(butter(6, [300, 3400], "bandpass", fs=RATE, output="sos"), audio)
    narrow = resample(narrow.astype(np.float32), RATE, 8000)
    coded = np.round(np.sign(narrow) * np.log1p(255 * np.minimum(np.abs(narrow), 1)) / np.log(256) * 127) / 127
    heard = np.sign(coded) * (256 ** np.abs(coded) - 1) / 255
    return resample(heard.astype(np.float32), 8000, RATE)


def room(audio: np.ndarray, seconds: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """A room of this reverberation time: exponentially decaying noise (Polack's model), the direct sound above it."""
    time = np.arange(int(1.2 * seconds * RATE)) / RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response[: RATE // 500] = 0
    response *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(response**2))
    response[0] = 1
    return _as_loud(fftconvolve(audio, response)[: len(audio)], audio)


def noisy(audio: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Under pink noise."""
    spectrum = np.fft.rfft(rng.standard_normal(len(audio)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)), len(audio))
    gain = np.sqrt(np.mean(audio**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    return np.asarray(audio + gain * noise, dtype=np.float32)


def whispered(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise in place of all excitation; without the fall of 12 dB an octave that a voice's source has."""
    excited = _excited(audio, rng.standard_normal(len(audio)))
    return _as_loud(lfilter([1, -0.95], [1], excited), audio)


def creaky(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Single pulses of 30 to 50 a second, uneven, in place of the excitation."""
    pulses, place = np.zeros(len(audio)), 0.0
    while place < len(audio):
        pulses[int(place)] = rng.uniform(0.7, 1.3)
        place += RATE / rng.uniform(30, 50)
    return _as_loud(_excited(audio, pulses), audio)


def with_pitch(
    audio: np.ndarray, f0: np.ndarray, rng: np.random.Generator, *, noise: float = 0.05, unsteady: float = 0.0
) -> np.ndarray:
    """Pulses at `f0` (Hz a sample) and noise, relative to them, in place of the excitation.

    Args:
        unsteady: by what share each period is longer and each pulse stronger than the next, at random.
    """
    pulses, place = np.zeros(len(audio)), 0.0
    while place < len(audio):
        start = int(place)
        pulses[start] = np.sqrt(RATE / f0[start]) * max(1 + 3 * unsteady * rng.standard_normal(), 0.1)
        place += RATE / f0[start] * (1 + float(np.clip(unsteady * rng.standard_normal(), -0.5, 0.5)))
    return _as_loud(_excited(audio, pulses + noise * rng.standard_normal(len(audio))), audio)


def wavering(audio: np.ndarray, rng: np.random.Generator, *, noise: float = 0.05, unsteady: float = 0.0) -> np.ndarray:
    """A pitch of 150 Hz that wavers by three semitones: clear, breathy by its noise or rough by its unsteadiness."""
    waver = 3 * np.sin(2 * np.pi * np.arange(len(audio)) / RATE / 1.3 + rng.uniform(0, 6))
    return with_pitch(audio, 150 * 2 ** (waver / 12), rng, noise=noise, unsteady=unsteady)


def ending_by(audio: np.ndarray, semitones: float, rng: np.random.Generator) -> np.ndarray:
    """A pitch of 150 Hz that wavers by a semitone and moves by `semitones` over the last half second of sound."""
    loud = np.flatnonzero(np.abs(audio) > 0.1 * np.abs(audio).max())
    end, half = int(loud[-1]), RATE // 2
    moves = np.interp(np.arange(len(audio)), [0, max(end - half, 1), end, len(audio)], [0, 0, semitones, semitones])
    waver = np.sin(2 * np.pi * np.arange(len(audio)) / RATE / 1.3 + rng.uniform(0, 6))
    return with_pitch(audio, 150 * 2 ** ((moves + waver) / 12), rng)


def flattened(audio: np.ndarray) -> np.ndarray:
    """Every 0.3 s as loud as any other: the gain undoes the syllables' own level, up to 20 dB."""
    envelope = _envelope(audio)
    gain = 1 / np.maximum(envelope, 0.1 * envelope.max())
    return _as_loud(audio * gain, audio)


def swelling(audio: np.ndarray, rng: np.random.Generator, spread_db: float = 8.0) -> np.ndarray:
    """Every 0.3 s as loud as any other and then louder or softer by `spread_db`, about a second each."""
    places = np.cumsum(rng.uniform(0.7, 1.3, 20)) * RATE
    levels = spread_db * np.tile([1.0, -1.0], 10)
    steps = np.repeat(np.arange(20), 2)
    edges = np.stack([places - 0.1 * RATE, places + 0.1 * RATE], axis=1).reshape(-1)
    level = np.interp(np.arange(len(audio)), edges, np.roll(levels[steps], 1))
    return _as_loud(flattened(audio) * 10 ** (level / 20), audio)


def emphasised(
    audio: np.ndarray, words: Sequence[Word], number: int, *, gain_db: float, stretch: float, semitones: float
) -> tuple[np.ndarray, list[Word]]:
    """One word louder, longer and higher, and the times of all words afterwards."""
    import librosa

    start, end = round(words[number].start * RATE), round(words[number].end * RATE)
    word = librosa.effects.time_stretch(audio[start:end], rate=1 / stretch, n_fft=512)
    word = librosa.effects.pitch_shift(word, sr=RATE, n_steps=semitones, n_fft=512)
    word = word * np.sqrt(np.mean(audio[start:end] ** 2) / max(float(np.mean(word**2)), 1e-12)) * 10 ** (gain_db / 20)
    more = (len(word) - (end - start)) / RATE
    times = [
        Word(one.word, one.start + more * (n > number), one.end + more * (n >= number), 1.0)
        for n, one in enumerate(words)
    ]
    changed = np.concatenate([audio[:start], word, audio[end:]])
    return np.asarray(changed / max(1.0, float(np.abs(changed).max())), dtype=np.float32), times


def _envelope(audio: np.ndarray) -> np.ndarray:
    """The loudest level within 0.3 s, smooth over 0.1 s, a sample."""
    power = np.convolve(np.square(audio.astype(np.float64)), np.ones(640) / 640, "same")
    peak = maximum_filter1d(np.sqrt(power), 4800)
    smooth: np.ndarray = np.convolve(peak, np.hanning(1600) / 800, "same")
    return smooth + 1e-9


def _excited(audio: np.ndarray, excitation: np.ndarray) -> np.ndarray:
    """The filters and levels of `audio` with another excitation [samples], frame by frame."""
    window = np.hanning(_FRAME)
    made = np.zeros(len(audio) + _FRAME)
    padded = np.pad(audio.astype(np.float64), (0, _FRAME))
    source = np.pad(excitation, (0, _FRAME))
    for start in range(0, len(audio), _HOP):
        frame = padded[start : start + _FRAME] * window
        lags = np.correlate(frame, frame, "full")[_FRAME - 1 : _FRAME + _ORDER]
        if lags[0] < 1e-6:
            continue
        lags[0] *= 1 + 1e-4
        filters = np.concatenate([[1.0], -solve_toeplitz(lags[:-1], lags[1:])])
        left = lfilter(filters, [1], frame)
        # The gain is that of an even excitation, so that a pulse in every second frame does not become a louder one.
        gain = np.sqrt(np.mean(left**2) / 0.375)
        made[start : start + _FRAME] += lfilter([gain], filters, source[start : start + _FRAME] * window)
    return made[: len(audio)]


def _as_loud(made: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """At the loudness that the recording has, without clipping."""
    scaled = made * np.sqrt(np.mean(audio.astype(np.float64) ** 2) / max(float(np.mean(made**2)), 1e-12))
    return np.asarray(scaled / max(1.0, float(np.abs(scaled).max())), dtype=np.float32)
