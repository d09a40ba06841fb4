"""What is known of recordings, and what a dataset made of them holds."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

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
    reason: str = ""


Truth = dict[str, list[TrueTurn]]
"""Turns by the path of the recording as the manifest gives it."""


def read_truth(file: Path, folder: Path) -> Truth:
    """A `truth.jsonl`: `path` below `folder`, and `language` and `text` of all of it, or `turns` with `start`, `end`,
    `language` (that of the recording where it lacks one) and `text`.

    Raises:
        UserError: a line that is none of these.
    """
    truth: Truth = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            truth[row["path"]] = _turns(row, folder)
        except (ValueError, KeyError, TypeError, soundfile.LibsndfileError) as error:
            raise UserError(
                f"{file}, line {number}: not a path with a language and a text, or with turns ({error!r})"
            ) from error
    return truth


def _turns(row: Mapping[str, Any], folder: Path) -> list[TrueTurn]:
    if "turns" not in row:
        seconds = float(soundfile.info(folder / row["path"]).duration)
        return [TrueTurn(start=0.0, end=seconds, text=row["text"], language=base_language(row["language"]))]
    return [
        TrueTurn(
            start=float(turn["start"]),
            end=float(turn["end"]),
            text=turn["text"],
            language=base_language(turn["language"] if "language" in turn else row["language"]),
        )
        for turn in row["turns"]
    ]


def sample_truth() -> Truth:
    """The sample recordings of one voice each, those under music too."""
    languages = {
        row["path"]: row["language"]
        for row in map(json.loads, (SAMPLES / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
        if "language" in row
    }
    lines = (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        row["path"]: _turns(row | {"language": languages[row["path"]]}, SAMPLES)
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
