"""Speech cut into clips of one speaker each with pyannote.audio's segmentation network.

The powerset network takes 10 s at a time and numbers speakers afresh in every window; consecutive windows overlap by
half and the numbering of the later one is permuted to agree best with the earlier one there. Overlapped speech is cut
out, speaker changes split, and clips end only in pauses.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationInfo, field_validator

from voxmill.core.audio import runs
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.data.records import CutBy

RATE = 16000
WINDOW, STEP = 10 * RATE, 5 * RATE


class SegmentationConfig(Config):
    """How long clips are and where they may end. All in seconds."""

    model: str = "embedded"
    """`embedded`, or the path or hub id of a pyannote segmentation model."""
    pipeline: str | None = None
    """In its place a pyannote diarization pipeline by path or id, such as pyannote/speaker-diarization-community-1."""
    max_seconds: float = 30.0
    """Longer stretches are cut at their best pause, or by force where there is none; one is transcribed at once."""
    lengths: dict[float, float] = {60.0: 0.25, 180.0: 0.15, 300.0: 0.1}
    """Shares of one speaker's long speech that are joined into long clips of up to so many seconds; {} joins none."""
    long_pause: float = 2.0
    """Longest pause inside a long clip, in seconds."""
    join_pause: float = 0.8
    """Stretches of one speaker with a shorter pause than this, in seconds, are joined."""
    cut_pause: float = 0.15
    """A pause must be this long, in seconds, for a cut to fall into it."""
    edge_margin: float = 0.15
    """Seconds of audio kept before and after the speech of a clip."""
    overlap_margin: float = 0.1
    """Seconds removed on either side of overlapped speech."""
    min_speech: float = 0.2
    """Stretches with less speech than this, in seconds, are dropped."""

    @field_validator("lengths")
    @classmethod
    def _are_shares(cls, lengths: dict[float, float], info: ValidationInfo) -> dict[float, float]:
        shortest = info.data.get("max_seconds", 0.0)
        for seconds, share in lengths.items():
            if not seconds > shortest:
                raise ValueError(f"{seconds:g} is not above max_seconds = {shortest:g}, which clips reach without it")
            if not 0 <= share <= 1:
                raise ValueError(f"the share of clips up to {seconds:g} s is {share:g}; set it to 0..1")
        if not sum(lengths.values()) <= 1 + 1e-9:
            raise ValueError(f"the shares add up to {sum(lengths.values()):g}; they may not to more than 1")
        return dict(sorted(lengths.items()))


@dataclass(frozen=True)
class Segment:
    """One candidate clip in seconds; `cut` is what ends it: `forced` where there was no pause to cut in."""

    start: float
    end: float
    speaker: int
    cut: CutBy


@dataclass(frozen=True)
class Segmentation:
    """Candidate clips of a recording, and the seconds of speech and of overlapped speech in it."""

    segments: list[Segment]
    speech_seconds: float
    overlap_seconds: float


class SpeechSegmenter:
    """Speech regions, overlap and speaker changes of 16 kHz audio.

    Args:
        model: path or hub id of a pyannote segmentation model.
    """

    def __init__(self, config: SegmentationConfig, model: str | Path, device: str = "cpu"):
        os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
        from pyannote.audio import Model
        from pyannote.audio.utils.powerset import Powerset

        loaded = Model.from_pretrained(model)
        if loaded is None:
            raise UserError(f"segmentation.model={model}: pyannote.audio cannot load it")
        self.model = loaded.to(device).eval()
        specifications: Any = self.model.specifications
        self.to_multilabel = Powerset(len(specifications.classes), specifications.powerset_max_classes).to(device)
        self.config, self.device = config, device
        # A core gains nothing by more at a time, and a window takes 20 MB on its way.
        self.batch_size = 4 if device == "cpu" else 256

    def activities(self, recordings: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        """Speaker activity, bool [frames, speakers], and seconds a frame, of each float32 [samples] at 16 kHz.

        Batches go across the recordings, in their order.
        """
        import torch

        places = [
            (number, start)
            for number, audio in enumerate(recordings)
            for start in range(0, max(len(audio) - WINDOW + STEP, 1), STEP)
        ]
        active: list[list[np.ndarray]] = [[] for _ in recordings]
        with torch.inference_mode():
            for first in range(0, len(places), self.batch_size):
                batch = places[first : first + self.batch_size]
                windows_BT = np.zeros((len(batch), WINDOW), dtype=np.float32)
                for row, (number, start) in enumerate(batch):
                    window = recordings[number][start : start + WINDOW]
                    windows_BT[row, : len(window)] = window
                scores = self.model(torch.from_numpy(windows_BT)[:, None].to(self.device))
                active_BFS = self.to_multilabel(scores).cpu().numpy() > 0.5
                for (number, _), active_FS in zip(batch, active_BFS, strict=True):
                    active[number].append(active_FS)
        return [
            join_windows(np.stack(windows), len(audio) / RATE)
            for windows, audio in zip(active, recordings, strict=True)
        ]

    def __call__(self, recordings: Sequence[np.ndarray]) -> list[Segmentation]:
        """Cuts recordings, each float32 [samples] at 16 kHz."""
        activities = self.activities(recordings)
        return [
            cut(active_FS, frame_seconds, len(audio) / RATE, self.config)
            for (active_FS, frame_seconds), audio in zip(activities, recordings, strict=True)
        ]


def join_windows(active_NFS: np.ndarray, seconds: float) -> tuple[np.ndarray, float]:
    """Activity [frames, speakers] of a recording from that of its windows, and seconds a frame."""
    frame_seconds = WINDOW / RATE / active_NFS.shape[1]
    stitched = _stitch(active_NFS, STEP / RATE / frame_seconds)
    return stitched[: max(int(np.ceil(seconds / frame_seconds)), 1)], frame_seconds


def _stitch(active_NFS: np.ndarray, step_frames: float) -> np.ndarray:
    """Joins windows [N,F,S] that advance by `step_frames`, permuting speakers to agree with what came before."""
    num, frames, speakers = active_NFS.shape
    # A step is no whole number of frames: rounded once for all, it would move clips by half a second in five minutes.
    starts = [round(n * step_frames) for n in range(num)]
    total = np.zeros((starts[-1] + frames, speakers), dtype=bool)
    total[:frames] = active_NFS[0]
    for n, start in enumerate(starts[1:], 1):
        shared = starts[n - 1] + frames - start
        # The first quarter of a window has little left context: there the earlier window counts.
        seam = shared // 2
        before = total[start : start + shared]
        best = max(
            itertools.permutations(range(speakers)),
            key=lambda order: int((active_NFS[n][:shared][:, order] & before).sum()),
        )
        total[start + seam : start + frames] = active_NFS[n][seam:][:, best]
    return total


def cut(active_FS: np.ndarray, frame_seconds: float, duration: float, config: SegmentationConfig) -> Segmentation:
    """Candidate clips from speaker activity (pure; see `Segment` for what ends a clip).

    Regions of one speaker are joined over pauses up to `join_pause` while the clip stays within `max_seconds`; a
    region longer than that is cut at its longest inner pause of at least `cut_pause`, and where it has none at
    `max_seconds`, which marks both parts `forced`.
    """
    count = active_FS.sum(axis=1)
    overlap = count >= 2
    margin = round(config.overlap_margin / frame_seconds)
    blocked = overlap.copy()
    for start, end in runs(overlap):
        blocked[max(start - margin, 0) : end + margin] = True
    regions: list[tuple[float, float, int]] = []
    for speaker in range(active_FS.shape[1]):
        for start, end in runs(active_FS[:, speaker] & ~blocked):
            if (end - start) * frame_seconds >= config.min_speech:
                regions.append((start * frame_seconds, min(end * frame_seconds, duration), speaker))
    regions.sort()
    blocked_times = [(s * frame_seconds, e * frame_seconds) for s, e in runs(blocked)]

    groups: list[list[tuple[float, float, int]]] = []
    causes: list[CutBy] = []
    for region in regions:
        if groups:
            last = groups[-1][-1]
            crossed = any(s < region[0] and e > last[1] - 1e-9 for s, e in blocked_times)
            gap = region[0] - last[1]
            if crossed:
                causes[-1] = "overlap"
            elif region[2] != last[2]:
                causes[-1] = "speaker"
            elif gap <= config.join_pause:
                groups[-1].append(region)
                continue
        groups.append([region])
        causes.append("pause")
    segments: list[Segment] = []
    for group, cause in zip(groups, causes, strict=True):
        segments += _fit(group, cause, config)
    segments.sort(key=lambda segment: segment.start)
    return Segmentation(
        _with_margins(segments, duration, config, blocked_times),
        float((count > 0).sum() * frame_seconds),
        float(overlap.sum() * frame_seconds),
    )


def _fit(group: list[tuple[float, float, int]], cause: CutBy, config: SegmentationConfig) -> list[Segment]:
    """Cuts one run of regions so that no clip is longer than `max_seconds`, at the longest pauses first."""
    start, end, speaker = group[0][0], group[-1][1], group[0][2]
    limit = config.max_seconds - 2 * config.edge_margin
    if end - start <= limit:
        return [Segment(start, end, speaker, cause)]
    gaps = [
        (group[i + 1][0] - group[i][1], -abs((group[i][1] + group[i + 1][0]) / 2 - (start + end) / 2), i)
        for i in range(len(group) - 1)
        if group[i + 1][0] - group[i][1] >= config.cut_pause
    ]
    if gaps:
        i = max(gaps)[2]
        return _fit(group[: i + 1], "pause", config) + _fit(group[i + 1 :], cause, config)
    parts = int(np.ceil((end - start) / limit))
    size = (end - start) / parts
    return [Segment(start + k * size, start + (k + 1) * size, speaker, "forced") for k in range(parts)]


def _with_margins(
    segments: list[Segment], duration: float, config: SegmentationConfig, blocked: list[tuple[float, float]]
) -> list[Segment]:
    """Widens clips by the edge margin, at most to the middle of the pause and never into overlapped speech."""
    walls = sorted([(s.start, s.end) for s in segments] + blocked)
    result = []
    for segment in segments:
        left = max([e for s, e in walls if e <= segment.start + 1e-6], default=0.0)
        right = min([s for s, e in walls if s >= segment.end - 1e-6], default=duration)
        room_left = (segment.start - left) / 2 if left > 0 else segment.start
        room_right = (right - segment.end) / 2 if right < duration else duration - segment.end
        start = segment.start - min(config.edge_margin, max(room_left, 0.0))
        end = segment.end + min(config.edge_margin, max(room_right, 0.0))
        result.append(Segment(max(start, 0.0), min(end, duration), segment.speaker, segment.cut))
    return result
