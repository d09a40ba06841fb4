"""Records as JSON: numbers exact, answers of labellers kept apart from errors."""

import dataclasses
import math

import pytest

from voxmill.data.records import (
    Candidate,
    Cost,
    Emotion,
    Ending,
    Events,
    Gender,
    Label,
    SourceInfo,
    StageName,
    Window,
    WindowResult,
    WorkUnit,
    from_json_text,
    to_json_text,
)

WINDOW = Window(
    recording_id="r",
    name="né.wav",
    path="/né.wav",
    start_sample=0,
    end_sample=3,
    sample_rate=16000,
    source=SourceInfo(session="s"),
)
EVENTS = Events(speech_seconds=0.1 + 0.2, music_share=1e-310, singing_share=1 / 3, snr_db=8.0, speech=((1.0, 2.0),))


def test_a_work_unit_comes_back_from_json_number_for_number() -> None:
    ending = Ending(stage=StageName.EVENTS, reason="no_speech", value=0.1)
    result = WindowResult(window=WINDOW, events=EVENTS, ending=ending)
    unit = WorkUnit(unit_id="u", results=(result,), costs={StageName.EVENTS: Cost(seconds=0.7, calls=2)})
    assert from_json_text(WorkUnit, to_json_text(unit)) == unit


def test_a_number_that_is_none_stays_one() -> None:
    text = to_json_text(Cost(seconds=math.nan))
    assert math.isnan(from_json_text(Cost, text).seconds)


@pytest.mark.parametrize(
    "label",
    [
        Label(value=Gender(label="female", female=0.9)),
        Label(reason="unsure", withheld=Gender(label="male", female=0.4)),
        Label(reason="silent"),
        Label(error="ValueError: no"),
    ],
)
def test_every_kind_of_answer_comes_back_from_json(label: Label[Gender]) -> None:
    assert from_json_text(Label[Gender], to_json_text(label, Label[Gender])) == label


def test_a_withheld_answer_is_measured_and_no_value() -> None:
    emotion = Emotion(label="sad", probability=0.4, probabilities={"sad": 0.4, "neutral": 0.3}, intensity=0.7)
    label = Label(reason="unsure", withheld=emotion)
    assert label.value is None and label.measured is emotion
    assert Label[Emotion](error="x").measured is None


@pytest.mark.parametrize("text", ["no json", "{}", '{"seconds": "much"}', '{"seconds": 1.0, "calls": 1.5}'])
def test_what_is_no_such_record_is_refused(text: str) -> None:
    kind = WorkUnit if text == "{}" else Cost
    with pytest.raises(ValueError):
        from_json_text(kind, text)


def test_costs_add_up() -> None:
    assert Cost(seconds=1.0, calls=2) + Cost(audio_seconds=3.0, calls=1) == Cost(
        seconds=1.0, audio_seconds=3.0, calls=3
    )


def test_a_gender_has_the_probability_of_its_label() -> None:
    assert Gender(label="male", female=0.25).probability == 0.75
    assert Gender(label="female", female=0.75).probabilities == {"female": 0.75, "male": 0.25}


def test_the_share_of_a_clip_that_is_sung() -> None:
    window = Window(
        recording_id="r",
        name="r",
        path="r.wav",
        start_sample=1000,
        end_sample=11_000,
        sample_rate=1000,
        source=SourceInfo(session="s"),
    )
    events = dataclasses.replace(EVENTS, singing=((2.0, 4.0), (5.0, 9.0)))
    result = WindowResult(window=window, events=events)
    clips = [
        Candidate(clip_id="c", start_sample=start, end_sample=end, turn=0, cut="pause")
        for start, end in ((2000, 4000), (5000, 9000), (10_500, 11_000))
    ]
    assert [result.singing_share(clip) for clip in clips] == [0.5, 0.75, 0.0]
    # A unit of an older version does not tell, and that is not the same as none.
    old = WindowResult(window=window, events=EVENTS)
    assert old.singing_share(clips[0]) is None and WindowResult(window=window).singing_share(clips[0]) is None
