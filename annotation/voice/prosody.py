"""Prosody of one clip: pitch, energy, rate and pauses, voice quality; the measured facts behind descriptions.

Pitch is librosa's pyin (ISC licence). pyworld (MIT) comes as source only and would ask a fresh machine for a compiler,
Parselmouth is GPL-3 and openSMILE is for research only, so none of them is used. pyin runs on a coarse grid (15 cents,
50 thresholds, 20 ms steps), four times faster than its defaults. Against Praat on the sample recordings the median
pitch differs by 0.4 semitones and its spread by 0.2 (medians over clips); a minute of audio takes about 2 s on one
thread, all measures together.

Every measure is in its own unit and absolute; `annotation/corpus/expressiveness.py` knows what is much or little for a
voice or a language. A measure that cannot be taken is None: a whispered clip has no pitch.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

import numpy as np

from annotation.speech.text_checks import normalise
from annotation.voice import delivery, emphasis
from voxmill.core.audio import runs
from voxmill.core.config import Config
from voxmill.data.languages import base_language
from voxmill.data.records import Prosody, Seconds, Word

RATE = 16000
HOP = 320
FRAME = 1024
BLOCK, BESIDE = 1500, 25
"""Frames of a long clip whose pitch is tracked together, 30 s, and those before and after them, half a second."""

# Written without spaces or without vowels: syllables cannot be counted from the letters, so characters are.
_NO_SYLLABLES = frozenset({"ar", "he", "hi", "km", "lo", "my", "th"})
_VOWELS = frozenset("aeiouyøæœаеёиоуыэюяіїєαεηιουω")
_SMALL_KANA = frozenset("ぁぃぅぇぉゃゅょゎァィゥェォャュョヮ")


class ProsodyConfig(Config):
    """Pitch search range in Hz; silence in dB under the clip's loud frames; the shortest gap that is a pause, in s."""

    min_f0_hz: float = 60.0
    """Lowest pitch searched for, in Hz."""
    max_f0_hz: float = 600.0
    """Highest pitch searched for, in Hz."""
    silence_db: float = 35.0
    """Frames this far below the clip's loud frames, in dB, are silence."""
    min_pause_seconds: float = 0.15
    """Shortest gap that counts as a pause, in seconds."""
    min_voiced_frames: int = 10
    """With fewer voiced frames of 10 ms, a clip has no pitch."""


class ProsodyMeter:
    """All prosody of a clip. Holds no weights; built once because librosa compiles its first call."""

    def __init__(self, config: ProsodyConfig):
        self.config = config
        # The first call compiles for seconds: at start, not inside the first clip.
        self.pitch(np.zeros(RATE // 2, dtype=np.float32))

    def __call__(self, audio: np.ndarray, words: Sequence[Word], text: str, language: str) -> Prosody:
        """Measures one clip.

        Args:
            audio: float32 [samples] at 16 kHz, in -1..1; any length.
            words: with times in seconds of the clip, in order; may be empty.
            text: the transcript.
            language: its code, for counting syllables.
        """
        import librosa

        audio = np.ascontiguousarray(audio, dtype=np.float32)
        if len(audio) < FRAME:
            audio = np.pad(audio, (0, FRAME - len(audio)))
        level_db = librosa.amplitude_to_db(
            librosa.feature.rms(y=audio, frame_length=FRAME, hop_length=HOP)[0], ref=1.0, amin=1e-7, top_db=None
        )
        active = (level_db > np.quantile(level_db, 0.95) - self.config.silence_db) & (level_db > -90.0)
        f0 = self.pitch(audio) if active.any() else np.full(len(level_db), np.nan)
        f0[~active] = np.nan
        voiced = np.isfinite(f0)
        has_pitch = int(voiced.sum()) >= self.config.min_voiced_frames
        semitones = 12 * np.log2(f0[voiced] / np.median(f0[voiced])) if has_pitch else None
        timing = _timing(words, text, language, self.config.min_pause_seconds)
        hnr, tilt, prominence = voice_spectrum(audio, f0) if has_pitch else (None, None, None)
        jitter, shimmer = period_changes(audio, f0) if has_pitch else (None, None)
        return Prosody(
            f0_median_hz=float(np.median(f0[voiced])) if has_pitch else None,
            f0_std_semitones=float(semitones.std()) if semitones is not None else None,
            f0_range_semitones=_spread(semitones) if semitones is not None else None,
            voiced_share=float(voiced.sum() / active.sum()) if active.any() else 0.0,
            energy_std_db=float(level_db[active].std()) if active.any() else None,
            energy_range_db=_spread(level_db[active]) if active.any() else None,
            rate=timing.rate,
            articulation_rate=timing.articulation_rate,
            rate_unit=timing.rate_unit,
            pauses=timing.pauses,
            pause_share=timing.pause_share,
            longest_pause=timing.longest_pause,
            hnr_db=hnr,
            spectral_tilt_db=tilt,
            jitter=jitter,
            shimmer=shimmer,
            cpp_db=prominence,
            **asdict(delivery.measure(audio, level_db, active, f0)),
            emphasis=emphasis.candidates(level_db, f0, words, [count_units(one.word, language)[0] for one in words]),
        )

    def pitch(self, audio: np.ndarray) -> np.ndarray:
        """F0 in Hz a 20 ms frame, NaN where unvoiced, of float32 [samples] at 16 kHz.

        Of a clip longer than `BLOCK` frames it is tracked in blocks, with frames of their neighbours on both sides:
        what it takes, 70 MB and 2 s for 30 s, grows faster than the clip.
        """
        num = len(audio) // HOP + 1
        if num <= BLOCK + 1:
            return self._pitch(audio)
        blocks = []
        for first in range(0, num, BLOCK):
            last, left = min(first + BLOCK, num), min(first, BESIDE)
            part = self._pitch(audio[(first - left) * HOP : (last + BESIDE) * HOP])
            blocks.append(part[left : left + last - first])
        return np.concatenate(blocks)

    def _pitch(self, audio: np.ndarray) -> np.ndarray:
        import librosa

        f0, voiced, _ = librosa.pyin(
            audio,
            sr=RATE,
            fmin=self.config.min_f0_hz,
            fmax=self.config.max_f0_hz,
            frame_length=FRAME,
            hop_length=HOP,
            resolution=0.15,
            n_thresholds=50,
        )
        return np.where(voiced, f0, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timing:
    """The measures of prosody that the words tell, as `Prosody` has them."""

    rate: float | None
    articulation_rate: float | None
    rate_unit: Literal["syllables", "characters"]
    pauses: int
    pause_share: float
    longest_pause: Seconds


def _timing(words: Sequence[Word], text: str, language: str, min_pause_seconds: Seconds) -> _Timing:
    count, unit = count_units(text, language)
    gaps = [after.start - before.end for before, after in zip(words[:-1], words[1:], strict=True)]
    pauses = [float(gap) for gap in gaps if gap >= min_pause_seconds]
    seconds = words[-1].end - words[0].start if words else 0.0
    # Below a tenth of a second the times are wrong, not the speaker fast.
    is_timed = count > 0 and seconds >= 0.1
    return _Timing(
        rate=count / seconds if is_timed else None,
        articulation_rate=count / max(seconds - sum(pauses), 0.1) if is_timed else None,
        rate_unit=unit,
        pauses=len(pauses),
        pause_share=float(sum(pauses) / seconds) if seconds > 0 else 0.0,
        longest_pause=max(pauses, default=0.0),
    )


def with_other_words(
    prosody: Prosody, words: Sequence[Word], text: str, language: str, config: ProsodyConfig
) -> Prosody:
    """The prosody of a clip whose text, words or language are others than it was measured with."""
    timing = _timing(words, text, language, config.min_pause_seconds)
    stressed = emphasis.renamed(prosody.emphasis, words)
    return replace(prosody, **{field.name: getattr(timing, field.name) for field in fields(timing)}, emphasis=stressed)


def _spread(values: np.ndarray) -> float:
    low, high = np.quantile(values, [0.05, 0.95])
    return float(high - low)


def count_units(text: str, language: str) -> tuple[int, Literal["syllables", "characters"]]:
    """How many syllables a text has by its letters, or characters where letters do not tell.

    A hanzi, a hangul block and a kana mora count one; in alphabets a group of vowels counts one, at least one a word,
    and English final silent e none. A digit counts one, which is short for most numbers. Characters (without spaces)
    for Arabic, Hebrew, Hindi, Khmer, Lao, Burmese and Thai.
    """
    clean = normalise(text)
    base = base_language(language)
    if base in _NO_SYLLABLES:
        return sum(unicodedata.category(c)[0] in "LN" for c in clean), "characters"
    return sum(_syllables(word, base) for word in clean.split()), "syllables"


def _syllables(word: str, language: str) -> int:
    blocks = sum(map(_is_syllable_block, word))
    # й is a consonant, though it decomposes to и and a breve.
    letters = [c for c in unicodedata.normalize("NFD", word.replace("й", "")) if not unicodedata.combining(c)]
    digits = sum(c.isdigit() for c in word)
    if blocks:
        return blocks + digits
    groups, inside = 0, False
    for letter in letters:
        # Neighbouring vowels are two syllables in Cyrillic, a diphthong more often than not elsewhere.
        is_vowel = letter in _VOWELS
        groups += is_vowel and (not inside or "\u0400" <= letter <= "\u04ff")
        inside = is_vowel
    silent_e = language == "en" and word.endswith("e") and not word.endswith(("le", "ee", "ye")) and groups > 1
    return max(groups - silent_e, 0 if digits else 1) + digits


def _is_syllable_block(character: str) -> bool:
    """A hanzi, a hangul syllable, or a kana that is a mora of its own."""
    if character in _SMALL_KANA:
        return False
    return "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3"


def voice_spectrum(audio: np.ndarray, f0: np.ndarray) -> tuple[float, float, float | None]:
    """(harmonics-to-noise ratio, spectral tilt, cepstral peak prominence), dB, medians over a clip's voiced frames.

    The ratio is Boersma's (1993): the autocorrelation of the windowed frame over that of the window, at the period.

    Args:
        audio: float32 [samples] at 16 kHz.
        f0: Hz a frame of 20 ms centred at its multiple, NaN where unvoiced; some frame is voiced.
    """
    blocks = [_block_spectrum(audio, f0, first) for first in range(0, len(f0), BLOCK)]
    ratios, tilts, peaks = (np.concatenate(values) for values in zip(*blocks, strict=True))
    return float(np.median(ratios)), float(np.median(tilts)), float(np.median(peaks)) if len(peaks) else None


def _block_spectrum(audio: np.ndarray, f0: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ratios and tilts of the voiced frames of a block of frames; the cepstral peaks of even ones."""
    own = np.full(len(f0), np.nan)
    own[first : first + BLOCK] = f0[first : first + BLOCK]
    frames_NF, periods = _voiced_frames(audio, own)
    window = np.hanning(FRAME)
    spectrum = np.fft.rfft((frames_NF - frames_NF.mean(axis=1, keepdims=True)) * window, 2 * FRAME, axis=1)
    power = np.square(np.abs(spectrum))
    correlation = np.fft.irfft(power, axis=1)[:, :FRAME]
    of_window = np.fft.irfft(np.square(np.abs(np.fft.rfft(window, 2 * FRAME))))[:FRAME]
    normal = correlation / (correlation[:, :1] + 1e-20) / (of_window / of_window[0] + 1e-6)
    # pyin's grid is coarse: the peak is looked for within 6 % of its period.
    lags = np.arange(FRAME)
    near = np.abs(lags - periods[:, None]) <= np.maximum(0.06 * periods[:, None], 1.0)
    peak = np.clip(np.where(near, normal, -1.0).max(axis=1), 1e-4, 1 - 1e-4)
    hertz = np.fft.rfftfreq(2 * FRAME, 1 / RATE)
    low = power[:, (hertz >= 50) & (hertz < 1000)].sum(axis=1)
    high = power[:, (hertz >= 1000) & (hertz < 5000)].sum(axis=1)
    tilt = 10 * np.log10((low + 1e-20) / (high + 1e-20))
    even = np.flatnonzero(np.isfinite(own))[: len(periods)] % 2 == 0
    prominence = delivery.peak_prominence(10 * np.log10(power[even] + 1e-12), RATE / periods[even])
    return 10 * np.log10(peak / (1 - peak)), tilt, prominence


def _voiced_frames(audio: np.ndarray, f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames [N,FRAME] around the voiced centres and their periods [N] in samples."""
    padded = np.pad(audio, FRAME // 2)
    numbers = np.flatnonzero(np.isfinite(f0))
    numbers = numbers[numbers * HOP + FRAME <= len(padded)]
    return padded[numbers[:, None] * HOP + np.arange(FRAME)].astype(np.float64), RATE / f0[numbers]


def period_changes(audio: np.ndarray, f0: np.ndarray) -> tuple[float | None, float | None]:
    """(jitter, shimmer): mean relative change of length and of height between neighbouring periods; None without any.

    Periods are walked from peak to peak inside each voiced run, each next peak within 25 % of where pitch expects it.
    """
    from scipy.signal import butter, sosfiltfilt

    # Noise and formants move the peaks of single periods; under 600 Hz the pitch's own wave is left.
    wave = sosfiltfilt(butter(2, 600, fs=RATE, output="sos"), audio.astype(np.float64))
    # Peaks on the side where they stand out: the same signal upside down must not read differently.
    wave = wave if np.mean(wave**3) >= 0 else -wave
    lengths: list[float] = []
    heights: list[float] = []
    for first, last in runs(np.isfinite(f0)):
        times, peaks = _walk(wave, f0, first, last)
        periods = np.diff(times)
        steady = _steady(periods)
        lengths += (np.abs(np.diff(periods)) / periods[:-1])[steady].tolist()
        heights += (np.abs(np.diff(peaks[1:])) / np.maximum(peaks[1:-1], 1e-9))[steady].tolist()
    if not lengths:
        return None, None
    return float(np.mean(lengths)), float(np.mean(np.minimum(heights, 1.0)))


def _steady(periods: np.ndarray) -> np.ndarray:
    """Which neighbours may be compared: a jump of more than 1.3 is a lost period, not a rough voice."""
    ratio = periods[1:] / np.maximum(periods[:-1], 1e-9)
    steady: np.ndarray = (ratio < 1.3) & (ratio > 1 / 1.3)
    return steady


def _walk(wave: np.ndarray, f0: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (samples, interpolated) and heights of the peaks of one voiced run of frames."""
    end = min((last - 1) * HOP + HOP // 2, len(wave) - 2)
    start = max(first * HOP - HOP // 2, 1)
    period = RATE / f0[first]
    if start + period >= end:
        return np.zeros(0), np.zeros(0)
    position = start + int(np.argmax(wave[start : start + int(period)]))
    times, heights = [], []
    while position < end:
        a, b, c = wave[position - 1 : position + 2]
        curve = a - 2 * b + c
        shift = 0.5 * (a - c) / curve if curve < 0 else 0.0
        times.append(position + float(np.clip(shift, -0.5, 0.5)))
        heights.append(b)
        period = RATE / f0[min(max(round(position / HOP), first), last - 1)]
        low, high = position + int(0.75 * period), position + int(1.25 * period) + 1
        if high >= end:
            break
        position = low + int(np.argmax(wave[low:high]))
    return np.array(times), np.array(heights)
