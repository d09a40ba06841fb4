"""Some neighbours among a window's transcribed clips joined to long ones, by text and sound."""

import dataclasses
from itertools import pairwise

import numpy as np

from annotation.audio.quality import signal_to_noise_db
from annotation.speech.long_clips import MIN_SNR_DB, draw, follows, is_quiet, is_sure, join, runs, seconds_of
from pipelines.config import LabelConfig
from pipelines.stages.base import clip_slice
from pipelines.stages.segment import clip_id
from voxmill.core.audio import RATE_16K, resample
from voxmill.data.records import Candidate, WindowResult


def with_long_clips(result: WindowResult, samples: np.ndarray, label: LabelConfig) -> WindowResult:
    """The window with its clips, float32 [samples] at its rate, some of them joined as `segmentation.lengths` has it.

    Which ones depends on the recording and the window alone. A window without room for a long clip comes back as it is.
    """
    config, window, clips = label.segmentation, result.window, result.candidates
    if not config.lengths:
        return result
    rate = window.sample_rate
    spans = [(clip.start_sample / rate, clip.end_sample / rate) for clip in clips]
    sure = [is_sure(clip, label.transcription) for clip in clips]
    joins = [
        sure[number] and sure[number + 1] and _follows(result, before, after, label)
        for number, (before, after) in enumerate(pairwise(clips))
    ]
    joinable = [run for run in runs(joins) if seconds_of(spans, run) > config.max_seconds]
    # Only there is the sound of any interest.
    for run in joinable:
        clear = [_is_clear(_sound(result, samples, clips[number]), rate) for number in run]
        for number in run[:-1]:
            place = number - run.start
            joins[number] = clear[place] and clear[place + 1] and _has_quiet_pause(result, samples, number)
    joinable = [run for run in runs(joins) if seconds_of(spans, run) > config.max_seconds]
    seed = f"{window.recording_id}/{window.channel}/{window.start_sample}"
    drawn = {run.start: run for run in draw(spans, joinable, config, seed)}
    joined: list[Candidate] = []
    inside = 0
    for number, clip in enumerate(clips):
        if number in drawn:
            run = drawn[number]
            pieces = [clips[own] for own in run]
            name = clip_id(window, pieces[0].start_sample, pieces[-1].end_sample)
            joined.append(join(pieces, rate, name))
            inside = run.stop
        elif number >= inside:
            joined.append(clip)
    return dataclasses.replace(result, candidates=tuple(joined))


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
