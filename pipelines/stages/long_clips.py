"""Some neighbours among a window's transcribed clips joined to long ones, by text and sound.

A long clip stands beside its parts: once all is measured and given texts are known, either it or they enter the dataset
(`pipelines.corpus.select`).
"""

import dataclasses
from itertools import pairwise

import numpy as np

from annotation.audio.long_clips import MIN_SNR_DB, draw, follows, in_a_row, is_quiet, is_sure, join, seconds_of
from annotation.audio.quality import signal_to_noise_db
from pipelines.config import LabelConfig
from pipelines.stages.base import clip_slice
from pipelines.stages.segment import clip_id
from voxmill.core.audio import RATE_16K, resample
from voxmill.data.records import Candidate, WindowResult


def with_long_clips(result: WindowResult, samples: np.ndarray, label: LabelConfig) -> WindowResult:
    """The window with long clips, joined as `segmentation.lengths` has it, before their parts.

    Which ones depends on the recording and the window alone. A window without room for a long clip comes back as it
    is, and so does one whose clips are a corpus's own.

    Args:
        samples: float32 [T] of the window, at its rate.
    """
    config, window, clips = label.segmentation, result.window, result.candidates
    if not config.lengths or window.clips:
        return result
    rate = window.sample_rate
    spans = [(clip.start_sample / rate, clip.end_sample / rate) for clip in clips]
    sure = [is_sure(clip, label.transcription) for clip in clips]
    joins = [
        sure[number] and sure[number + 1] and _follows(result, before, after, label)
        for number, (before, after) in enumerate(pairwise(clips))
    ]
    joinable = [run for run in in_a_row(joins) if seconds_of(spans, run) > config.max_seconds]
    # Only there is the sound of any interest.
    for run in joinable:
        clear = [_is_clear(_sound(result, samples, clips[number]), rate) for number in run]
        for number in run[:-1]:
            place = number - run.start
            joins[number] = clear[place] and clear[place + 1] and _has_quiet_pause(result, samples, number)
    joinable = [run for run in in_a_row(joins) if seconds_of(spans, run) > config.max_seconds]
    seed = f"{window.recording_id}/{window.channel}/{window.start_sample}"
    drawn = {run.start: run for run in draw(spans, joinable, config, seed)}
    candidates: list[Candidate] = []
    long, end = "", 0
    for number, clip in enumerate(clips):
        if number in drawn:
            pieces, end = [clips[own] for own in drawn[number]], drawn[number].stop
            long = clip_id(window, pieces[0].start_sample, pieces[-1].end_sample)
            candidates.append(join(pieces, rate, long))
        candidates.append(dataclasses.replace(clip, part_of=long) if number < end else clip)
    return dataclasses.replace(result, candidates=tuple(candidates))


def _follows(result: WindowResult, before: Candidate, after: Candidate, label: LabelConfig) -> bool:
    is_next = follows(before, after, result.window.sample_rate, label.segmentation)
    return is_next and result.origin(before) == result.origin(after)


def _sound(result: WindowResult, samples: np.ndarray, clip: Candidate) -> np.ndarray:
    return samples[clip_slice(result, clip.start_sample, clip.end_sample)]


def _is_clear(sound: np.ndarray, rate: int) -> bool:
    return signal_to_noise_db(resample(sound, rate, RATE_16K)) >= MIN_SNR_DB


def _has_quiet_pause(result: WindowResult, samples: np.ndarray, number: int) -> bool:
    before, after = result.candidates[number : number + 2]
    pause = samples[clip_slice(result, before.end_sample, after.start_sample)]
    speech = samples[clip_slice(result, before.start_sample, before.end_sample)]
    return is_quiet(pause, speech, result.window.sample_rate)
