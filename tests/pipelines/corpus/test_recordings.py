"""How a recording ends whose windows ended differently."""

import dataclasses

from pipelines.corpus.collect import CollectedClips
from pipelines.corpus.recordings import finished_recordings
from tests.pipelines.corpus.made_clips import RATE, made_clip
from voxmill.data.records import EndedWindow, Ending, Recording, StageName, Window, WindowResult

OVERLAP = Ending(stage=StageName.SEGMENTATION, reason="overlapped_speech", value=0.8, threshold=0.5)
SILENCE = Ending(stage=StageName.EVENTS, reason="no_speech", value=0.0, threshold=0.5)
PLANNED = Recording(recording_id="s", path="s.ogg", session="s", state="planned", duration=90.0)


def window(start: int, ending: Ending | None, channel: int | None = None) -> WindowResult:
    """A window of 30 s, from which a clip was cut unless it ended."""
    whole: Window = made_clip().window
    levels = () if channel is None else (0.1, 0.1)
    part = dataclasses.replace(
        whole, start_sample=start * RATE, end_sample=(start + 30) * RATE, channel=channel, levels=levels
    )
    clips = () if ending is not None else (made_clip(start).candidate,)
    return WindowResult(window=part, candidates=clips, ending=ending)


def finished(*windows: WindowResult) -> Recording:
    clips = [made_clip(number) for number, one in enumerate(windows) if one.ending is None]
    (row,) = finished_recordings([PLANNED], CollectedClips(kept=clips, windows={"s": list(windows)}))
    return row


def test_a_window_that_is_lost_is_told() -> None:
    row = finished(window(0, None), window(30, OVERLAP), window(60, None))
    assert (row.state, row.num_kept, row.seconds_lost) == ("kept_in_part", 2, 30.0)
    assert row.ended_windows == (
        EndedWindow(
            start=30.0,
            end=60.0,
            channel=None,
            stage="segmentation",
            reason="overlapped_speech",
            value=0.8,
            threshold=0.5,
            detail="",
        ),
    )


def test_a_recording_of_which_nothing_is_lost_is_kept() -> None:
    row = finished(window(0, None), window(30, None))
    assert (row.state, row.seconds_lost, row.ended_windows) == ("kept", 0.0, ())
    row = finished(window(0, None), window(30, SILENCE))
    assert (row.state, row.seconds_lost) == ("kept", 0.0)
    assert [window.reason for window in row.ended_windows] == ["no_speech"]


def test_a_recording_of_which_all_is_lost_is_rejected() -> None:
    row = finished(window(0, OVERLAP), window(30, SILENCE))
    assert (row.state, row.reason, row.seconds_lost) == ("rejected", "overlapped_speech", 30.0)


def test_who_is_silent_on_a_channel_of_their_own_loses_nothing() -> None:
    row = finished(window(0, None, 0), window(0, SILENCE, 1), window(30, OVERLAP, 0), window(30, None, 1))
    assert (row.state, row.seconds_lost) == ("kept_in_part", 30.0)
    assert [(ended.start, ended.channel) for ended in row.ended_windows] == [(0.0, 1), (30.0, 0)]


def test_a_file_that_is_no_recording_has_no_row() -> None:
    other = dataclasses.replace(PLANNED, path="notes.txt", state="other", recording_id=None)
    assert finished_recordings([other], CollectedClips()) == []
