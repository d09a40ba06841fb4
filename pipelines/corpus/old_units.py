"""TEMPORARY: units of format 1 as records, until format 2 lands."""

import base64
from typing import Any

import numpy as np

from pipelines.corpus.clips import VoiceLabels
from voxmill.data.records import (
    Age,
    Candidate,
    Cost,
    Emotion,
    Ending,
    Gender,
    Label,
    Prosody,
    Quality,
    Separation,
    SourceInfo,
    StageName,
    TranscriptChecks,
    Window,
    WindowResult,
    Word,
)

TITLES = {
    "Decode": "decode",
    "Listen": "events",
    "Separate": "separation",
    "Segment": "segmentation",
    "Transcribe": "transcription",
    "Measure": "quality",
    "Write": "write",
    "Voices": "voice_attributes",
}


def stage(name: str) -> StageName:
    return StageName(TITLES.get(name, name))


def cost(v: dict[str, Any]) -> Cost:
    return Cost(seconds=v["seconds"], audio_seconds=v["audio_seconds"], calls=v["calls"])


def window(part: dict[str, Any]) -> WindowResult:
    w = Window(
        recording_id=part["recording_id"],
        name=part["name"],
        path=part["path"],
        start_sample=part["start_sample"],
        end_sample=part["end_sample"],
        sample_rate=part["sample_rate"],
        channel=part["channel_choice"],
        digests=tuple(part["digests"]),
        source=SourceInfo(
            session=part["session"],
            speaker=part["speaker"],
            text=part["text"],
            language=part["language"],
            licence=part["licence"],
        ),
    )
    s = part.get("separation")
    e = part.get("end")
    return WindowResult(
        window=w,
        separation=None if s is None else Separation(**s),
        ending=None if e is None else Ending(**(e | {"stage": stage(e["stage"])})),
        candidates=tuple(
            Candidate(
                clip_id=c["clip_id"],
                start_sample=c["start_sample"],
                end_sample=c["end_sample"],
                turn=c["turn"],
                cut=c["cut"],
                text=c["text"],
                words=tuple(Word(**x) for x in c["words"]),
                language=c["language"],
                language_probability=part["language_probability"],
                transcript=TranscriptChecks(**c["transcript"]),
                quality=Quality(**c["quality"]),
            )
            for c in (part.get("clips", []) if e is None else [])
        ),
    )


def label(name: str, v: dict[str, Any]) -> Label[Any]:
    g: Any
    if "error" in v:
        return Label(error=v["error"])
    if name == "prosody":
        return Label(value=Prosody(**v))
    if name == "speaker":
        return (
            Label(reason=v["reason"])
            if v["reason"]
            else Label(value=np.frombuffer(base64.b64decode(v["vector"]), np.float32))
        )
    if name == "gender":
        g = (
            None
            if v["female"] is None
            else Gender(label=v["label"] or ("female" if v["female"] > 0.5 else "male"), female=v["female"])
        )
        return Label(value=g) if v["label"] else Label(reason=v["reason"], withheld=g)
    if name == "emotion":
        g = (
            None
            if v["probability"] is None
            else Emotion(
                label=v["label"],
                probability=v["probability"],
                probabilities=v["probabilities"],
                intensity=v["intensity"],
            )
        )
    else:
        g = (
            None
            if v["probability"] is None
            else Age(label=v["label"], probability=v["probability"], probabilities=v["probabilities"])
        )
    return Label(value=g) if v["label"] else Label(reason=v["reason"], withheld=g)


def content(state: dict[str, Any], places: Any, voices: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    costs = {stage(n): cost(v) for n, v in state.get("stages", {}).items()}
    costs |= {StageName(n): cost(v) for n, v in voices.items()}
    ids = {i for v in voices.values() for i in v["clips"]}
    by_clip = {
        i: VoiceLabels(**{n: label(n, v["clips"][i]) for n, v in voices.items() if i in v["clips"]}) for i in ids
    }
    return tuple(window(p) for p in state["parts"]), costs, places, by_clip
