"""Cutting speaker activity into clips: invariants over random activity, and the named cases."""

import numpy as np
import pytest

from annotation.audio.segmentation import SegmentationConfig, cut, join_windows

FRAME = 0.02


def activity(*regions: tuple[float, float, int], seconds: float = 60.0) -> np.ndarray:
    mask = np.zeros((int(seconds / FRAME), 3), dtype=bool)
    for start, end, speaker in regions:
        mask[round(start / FRAME) : round(end / FRAME), speaker] = True
    return mask


def test_a_short_pause_joins_and_a_long_one_splits() -> None:
    segmentation = cut(activity((1, 4, 0), (4.5, 8, 0), (12, 15, 0)), FRAME, 60.0, SegmentationConfig())
    assert [(round(s.start, 2), round(s.end, 2)) for s in segmentation.segments] == [(0.85, 8.15), (11.85, 15.15)]


def test_overlap_is_cut_out_and_splits() -> None:
    segmentation = cut(activity((1, 6, 0), (5, 10, 1)), FRAME, 60.0, SegmentationConfig())
    assert segmentation.overlap_seconds == pytest.approx(1.0)
    first, second = segmentation.segments
    assert first.end <= 5.0 and second.start >= 6.0 and first.cut == "overlap"
    assert first.speaker != second.speaker


def test_a_speaker_change_splits_without_a_pause() -> None:
    segmentation = cut(activity((1, 5, 0), (5, 9, 1)), FRAME, 60.0, SegmentationConfig())
    assert [s.cut for s in segmentation.segments] == ["speaker", "pause"]


def test_a_long_run_is_cut_at_its_longest_pause_and_never_elsewhere_unmarked() -> None:
    regions = [(0, 12, 0), (12.3, 20, 0), (20.6, 38, 0)]
    segmentation = cut(activity(*regions), FRAME, 60.0, SegmentationConfig())
    assert [s.cut for s in segmentation.segments] == ["pause", "pause"]
    assert segmentation.segments[0].end <= 20.3 <= segmentation.segments[1].start
    endless = cut(activity((0, 50, 0)), FRAME, 60.0, SegmentationConfig())
    assert {s.cut for s in endless.segments} == {"forced"}


@pytest.mark.parametrize("seed", range(20))
def test_clips_never_overlap_and_keep_to_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = activity(seconds=120.0)
    for _ in range(40):
        start = rng.uniform(0, 118)
        mask[round(start / FRAME) : round((start + rng.uniform(0.1, 12)) / FRAME), rng.integers(3)] = True
    config = SegmentationConfig(max_seconds=float(rng.uniform(5, 30)))
    segments = cut(mask, FRAME, 120.0, config).segments
    overlap = mask.sum(axis=1) >= 2
    for before, after in zip(segments[:-1], segments[1:], strict=True):
        assert before.end <= after.start + 1e-6
    for segment in segments:
        assert 0 <= segment.start < segment.end <= 120.0
        assert segment.end - segment.start <= config.max_seconds + 1e-6
        assert not overlap[round(segment.start / FRAME) : round(segment.end / FRAME)].any()


def test_joined_windows_keep_their_times_however_long_the_recording() -> None:
    bounds = np.arange(3.3, 300, 7.1)

    def speaks(seconds: np.ndarray) -> np.ndarray:
        return np.asarray(np.searchsorted(bounds, seconds) % 2 == 1)

    frames = 589
    times = np.array([5.0 * window + (np.arange(frames) + 0.5) * 10 / frames for window in range(59)])
    active_NFS = np.zeros((*times.shape, 3), dtype=bool)
    active_NFS[..., 0] = speaks(times)
    active_FS, frame_seconds = join_windows(active_NFS, 300.0)
    edges = np.flatnonzero(np.diff(active_FS.any(axis=1))) * frame_seconds
    assert len(edges) == len(bounds) and np.abs(edges + frame_seconds - bounds).max() < 0.03
