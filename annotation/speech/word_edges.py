"""Word times moved to where the sound is: cross-attention blurs the edges of words at pauses.

Whisper's word times touch each other across pauses, so the silence before a word belongs to it by mistake, and the last
word before a pause ends up to 0.4 s before its sound does. Edges inside continuous speech stay where they were.
"""

import dataclasses

import numpy as np

from annotation.speech.transcription import RATE
from voxmill.data.records import Word

FRAMES = 100
HOP = RATE // FRAMES
# Sound is what is within this distance of the clip's loud frames; fricatives at a word's edge are 25 to 30 dB down.
DEPTH_DB = 35.0
SILENCE_DB = -80.0
# Closures of stops inside a word last up to 0.1 s; only a longer silence is a pause.
PAUSE_SECONDS = 0.1
# No closure lasts this long: what lies beyond it is the end of the word before, or the beginning of the one behind.
BROKEN_SECONDS = 0.2
# The last word before a pause was measured to end up to 0.47 s early; more than this is another sound, not its end.
REACH_SECONDS = 0.6


def tighten(words: list[Word], audio: np.ndarray) -> list[Word]:
    """Words that begin and end with their sound where there is a pause beside them.

    Args:
        words: in order, seconds from the clip's start.
        audio: float32 [samples] at 16 kHz, the clip.
    """
    sounds = sounding(audio)
    trimmed = [_trim(word, sounds) for word in words]
    # A word may grow up to where the next one begins, which is known once that has lost its silence.
    limits = [*[word.start for word in trimmed], len(sounds) / FRAMES][1:]
    return [_extend(word, sounds, limit) for word, limit in zip(trimmed, limits, strict=True)]


def _trim(word: Word, sounds: np.ndarray) -> Word:
    """The word without the pauses in its own bounds, before and after its sound, and what lies beyond them."""
    first, last = int(word.start * FRAMES), max(int(np.ceil(word.end * FRAMES)), int(word.start * FRAMES) + 1)
    frames = np.flatnonzero(sounds[first:last])
    if len(frames) == 0:
        return word
    parts = np.split(frames, np.flatnonzero(np.diff(frames) > BROKEN_SECONDS * FRAMES) + 1)
    own = max(parts, key=len)
    lead, tail = own[0] / FRAMES, (last - first - 1 - own[-1]) / FRAMES
    start = word.start + lead if lead >= PAUSE_SECONDS else word.start
    end = word.end - tail if tail >= PAUSE_SECONDS else word.end
    return dataclasses.replace(word, start=round(start, 3), end=round(max(end, start), 3))


def _extend(word: Word, sounds: np.ndarray, limit: float) -> Word:
    """The word with the sound that continues behind it, up to the next pause or word."""
    at = int(word.end * FRAMES)
    reach = min(limit, word.end + REACH_SECONDS)
    ahead = sounds[at : int(reach * FRAMES)]
    if not ahead[: int(PAUSE_SECONDS * FRAMES)].any():
        return word
    pause = int(PAUSE_SECONDS * FRAMES)
    # The first run of silent frames as long as a pause; what lies beyond the reach counts as silent.
    silent = np.convolve(np.append(~ahead, np.ones(pause, dtype=bool)), np.ones(pause), mode="valid") == pause
    return dataclasses.replace(word, end=round(max(word.end, min((at + int(np.argmax(silent))) / FRAMES, limit)), 3))


def sounding(audio: np.ndarray) -> np.ndarray:
    """Whether each 10 ms frame of float32 [samples] at 16 kHz sounds, bool [frames]."""
    frames = audio[: len(audio) // HOP * HOP].reshape(-1, HOP)
    level_db = 10 * np.log10(np.square(frames.astype(np.float64)).mean(axis=1) + 1e-12)
    if len(level_db) == 0:
        return np.zeros(0, dtype=bool)
    loud, floor = np.percentile(level_db, 95), np.percentile(level_db, 5)
    # Where the background is high, what is midway between it and the voice already counts as sound.
    sounds: np.ndarray = level_db > max(loud - DEPTH_DB, min((loud + floor) / 2, loud - 10), SILENCE_DB)
    return sounds
