"""What is known of recordings, and what a dataset made of them holds."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from annotation.speech.known_text import KnownRecording, known_recording, read_known_text
from samples.turns import SAMPLES
from voxmill.core.errors import UserError
from voxmill.data.languages import base_language
from voxmill.data.layout import read_index


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueTurn:
    """A known turn of a recording, in seconds."""

    start: float
    end: float
    text: str
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetClip:
    """A clip of a dataset, in seconds of its recording.

    words: start and end of each, from the clip's start. reason: why it was rejected; "" for a kept clip.
    """

    start: float
    end: float
    text: str
    language: str
    words: tuple[tuple[float, float], ...] = ()
    predicted_wer: float | None = None
    reason: str = ""


Truth = dict[str, list[TrueTurn]]
"""Turns by the path of the recording as the manifest gives it."""


def read_truth(file: Path, folder: Path) -> Truth:
    """A `truth.jsonl` as `annotation.speech.known_text` describes it, of recordings below `folder`.

    Raises:
        UserError: a line that is no such row, or whose recording cannot be read.
    """
    return {path: _turns(recording, folder) for path, recording in read_known_text(file).items()}


def _turns(recording: KnownRecording, folder: Path) -> list[TrueTurn]:
    """Turns with an end each; a text without times is of the whole recording."""
    return [
        TrueTurn(
            start=turn.start,
            end=turn.end if math.isfinite(turn.end) else _seconds(folder / recording.path),
            text=turn.text,
            language=base_language(turn.language),
        )
        for turn in recording.turns
    ]


def _seconds(path: Path) -> float:
    try:
        return float(soundfile.info(path).duration)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def sample_truth() -> Truth:
    """The sample recordings of one voice each, those under music too."""
    languages = {
        row["path"]: row["language"]
        for row in map(json.loads, (SAMPLES / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
        if "language" in row
    }
    lines = (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        row["path"]: _turns(known_recording(row | {"language": languages[row["path"]]}), SAMPLES)
        for row in map(json.loads, lines)
        if row["path"] in languages
    }


def write_truth(file: Path, truth: Truth) -> None:
    """The inverse of `read_truth`, with turns."""
    rows = ({"path": path, "turns": [dataclasses.asdict(turn) for turn in turns]} for path, turns in truth.items())
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def dataset_clips(out: Path) -> dict[str, list[DatasetClip]]:
    """Kept and rejected clips by the recording's path as the manifest gives it, in order of time."""
    names = {row["recording_id"]: row["path"] for row in read_index(out / "recordings.parquet").to_pylist()}
    clips: dict[str, list[DatasetClip]] = {}
    for index in ("clips.parquet", "rejected.parquet"):
        for row in read_index(out / index).to_pylist():
            rate = row["sample_rate"]
            clip = DatasetClip(
                start=row["start_sample"] / rate,
                end=row["end_sample"] / rate,
                text=row["text"],
                language=row["language"],
                words=tuple((word["start"], word["end"]) for word in row["words"]),
                predicted_wer=row["predicted_wer"],
                reason=row.get("reason") or "",
            )
            clips.setdefault(names[row["recording_id"]], []).append(clip)
    return {path: sorted(of_path, key=lambda clip: clip.start) for path, of_path in clips.items()}


def kept(clips: Sequence[DatasetClip]) -> list[DatasetClip]:
    """Those that were not rejected."""
    return [clip for clip in clips if not clip.reason]


def overlap(clip: DatasetClip, turn: TrueTurn) -> float:
    """Seconds that lie in both."""
    return max(min(clip.end, turn.end) - max(clip.start, turn.start), 0.0)
