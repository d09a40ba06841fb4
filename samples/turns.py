"""The known turns of the sample recordings: speaker, text, time and language."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SAMPLES = Path(__file__).resolve().parent
RATE = 16000
"""Hertz, of every sample recording."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One known turn of a sample recording."""

    recording: str
    """Stem of the file's name."""
    speaker: str
    language: str
    start: float
    """Seconds from the recording's start."""
    end: float
    text: str
    audio: np.ndarray
    """Mono float32 in [-1, 1], [samples] at `RATE`."""


def sample_turns() -> list[Turn]:
    """The turns of all sample recordings of one known speaker without music, in order."""
    rows = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    truth = [json.loads(line) for line in (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    turns_of = {row["path"]: row["turns"] for row in truth}
    turns = []
    for row in rows:
        if "speaker" not in row or "music" in row["path"]:
            continue
        audio, rate = soundfile.read(SAMPLES / row["path"], dtype="float32")
        assert rate == RATE
        for turn in turns_of[row["path"]]:
            piece = audio[round(turn["start"] * RATE) : round(turn["end"] * RATE)]
            name = Path(row["path"]).stem
            turns.append(Turn(name, row["speaker"], row["language"], turn["start"], turn["end"], turn["text"], piece))
    return turns


def sample_texts() -> list[str]:
    """The words of the sample recordings, turn by turn, those with music or several speakers included."""
    lines = (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return [turn["text"] for line in lines for turn in json.loads(line)["turns"]]
