"""Word times moved to where the sound is: cross-attention puts a word after a pause up to 0.4 s early.

Whisper's word times touch each other across pauses, so the silence at a word's start or end belongs to it by mistake.
A word is never made shorter than its sound, and edges inside continuous speech stay where they were.
"""

import dataclasses

import numpy as np

from annotation.transcription import RATE, Word

HOP = RATE // 100
# Sound is what is within this distance of the clip's loud frames; fricatives at a word's edge are 25 to 30 dB down.
DEPTH_DB = 35.0
# Closures of stops inside a word last up to 0.1 s; only a longer silence is a pause.
PAUSE_SECONDS = 0.1


def tighten(words: list[Word], audio: np.ndarray) -> list[Word]:
    """Words without the pauses before and after them.

    Args:
        words: in order, seconds from the clip's start.
        audio: float32 [samples] at 16 kHz, the clip.
    """
    sounding = _sounding(audio)
    result = []
    for word in words:
        first, last = int(word.start * 100), max(int(np.ceil(word.end * 100)), int(word.start * 100) + 1)
        frames = np.flatnonzero(sounding[first:last])
        if len(frames) == 0:
            result.append(word)
            continue
        lead, tail = frames[0] / 100, (last - first - 1 - frames[-1]) / 100
        start = word.start + lead if lead >= PAUSE_SECONDS else word.start
        end = word.end - tail if tail >= PAUSE_SECONDS else word.end
        result.append(dataclasses.replace(word, start=round(start, 3), end=round(max(end, start), 3)))
    return result


def _sounding(audio: np.ndarray) -> np.ndarray:
    """Whether each 10 ms frame sounds, bool [frames]."""
    frames = audio[: len(audio) // HOP * HOP].reshape(-1, HOP)
    level_db = 10 * np.log10(np.square(frames.astype(np.float64)).mean(axis=1) + 1e-12)
    if len(level_db) == 0:
        return np.zeros(0, dtype=bool)
    loud, floor = np.percentile(level_db, 95), np.percentile(level_db, 5)
    # Where the background is high, what is midway between it and the voice already counts as sound.
    return level_db > max(loud - DEPTH_DB, min((loud + floor) / 2, loud - 10))
